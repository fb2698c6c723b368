"""python -m nas.search +budget=latency_3ms: find the highest-scoring detector within a budget."""

from __future__ import annotations

from nas.commands.search import SearchCommand, search_in
from nas.config import Job, launch


def run(command: SearchCommand, job: Job) -> None:
    """Search with a composed configuration, in Hydra's run folder, or that of the run to resume; a sweep gets its joint table
    and picture."""
    try:
        search_in(command, job.folder, job.given)
    finally:
        if job.sweep is not None:
            from nas.commands.search_sweep import write_sweep

            write_sweep(job.sweep)


if __name__ == "__main__":
    launch("search", SearchCommand, run)
