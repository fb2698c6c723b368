"""What a detector is taught: targets, losses, distillation."""
