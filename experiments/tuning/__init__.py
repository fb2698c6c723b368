"""How the settings of searchers and trainers were chosen: a sweep of evolution's, and where each trainer's come from."""
