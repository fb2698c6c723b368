"""Annotations in the forms that people keep them in, in and out."""
