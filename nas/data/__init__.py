"""Annotated images: what they are, where they lie, what is wrong with them, and batches of them."""
