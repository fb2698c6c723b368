"""What searchers search: draws, moves, costs and scores of many candidates at once."""
