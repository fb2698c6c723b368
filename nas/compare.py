"""python -m nas.compare models=[damo-yolo-s,yolo11s]: detectors side by side, every number with its source."""

from __future__ import annotations

from nas.commands.compare import CompareSettings, run_comparison
from nas.config import Job, launch


def run(settings: CompareSettings, job: Job) -> None:
    """Compare, and print the table and where it was written."""
    print(run_comparison(settings))
    print(f"written to {settings.folder}: compare.md, compare.csv, compare.png, compare.html")


if __name__ == "__main__":
    launch("compare", CompareSettings, run)
