"""python -m nas.profile hardware=my_device mode=quick: measure, calibrate or validate a latency table of this device."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from nas.config import Job, launch
from nas.cost.table_file import find_table, read_table
from nas.measure.profiler import ProfileSettings, measure_table


def run(settings: ProfileSettings, job: Job) -> None:
    """Measure or validate a table, and print where it is and what to do with it."""
    if settings.mode == "validate":
        from nas.measure.validate import validate_table

        table = find_table(settings.table or settings.table_path)
        print(f"{table}: {validate_table(settings, table)}")
        return
    path = measure_table(settings)
    print("\n".join([f"table: {path}", *next_commands(path, job.given)]))


def next_commands(path: Path, overrides: Sequence[str]) -> list[str]:
    """How to validate the table and to search with it: the same settings, and half of its networks within the limit."""
    header, _ = read_table(path)
    side = header.image_sizes[-1]
    again = [text for text in overrides if not text.startswith("mode=")]
    kept = [text for text in overrides if text.startswith(("space", "neck"))]
    limit = header.provenance["median_ms"][str(side)]
    search = [f"+budget.mine.latency_ms={limit:g}", f"hardware={path}", f"image_size={side}", *kept]
    return [
        f"validate it:  {shlex.join(['python', '-m', 'nas.profile', *again, 'mode=validate'])}",
        f"search with it:  {shlex.join(['python', '-m', 'nas.search', *search])}",
    ]


if __name__ == "__main__":
    launch("profile", ProfileSettings, run)
