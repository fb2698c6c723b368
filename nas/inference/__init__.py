"""From pictures to boxes, and what the boxes are worth."""
