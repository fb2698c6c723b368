"""The training of a detector: its loop, state, schedule and record."""
