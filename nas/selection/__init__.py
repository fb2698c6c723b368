"""Finalists proposed by search, trained on one's own data, and chosen by what they reach there."""
