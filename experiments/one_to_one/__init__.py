"""What a detector without NMS loses, and what its milliseconds are worth."""
