"""From a drawn image to an augmented one."""
