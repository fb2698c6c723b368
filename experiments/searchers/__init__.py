"""Searchers side by side on problems whose optimum is proved."""
