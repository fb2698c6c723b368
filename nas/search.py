"""python -m nas.search +budget=latency_3ms: find the highest-scoring detector within a budget."""

from __future__ import annotations

from nas.commands.search import SearchCommand, search_in
from nas.config import Job, launch


def run(command: SearchCommand, job: Job) -> None:
    """Search with a composed configuration, in Hydra's run folder, or that of the run to resume."""
    search_in(command, job.folder, job.given)


if __name__ == "__main__":
    launch("search", SearchCommand, run)
