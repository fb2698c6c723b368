"""Exact search: the optimum, its proof, and what comes close."""
