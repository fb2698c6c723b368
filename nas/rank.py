"""python -m nas.rank networks=damo-yolo-s: score networks, judge scores, fit one to trained detectors."""

from __future__ import annotations

from nas.commands.rank import RankSettings, run_ranking
from nas.config import Job, launch


def run(settings: RankSettings, job: Job) -> None:
    """Score, and print the report."""
    print(run_ranking(settings))


if __name__ == "__main__":
    launch("rank", RankSettings, run)
