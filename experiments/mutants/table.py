"""The table of judged changes, and what it says: how many were noticed, and which were not."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from experiments.mutants.places import MIRRORS, Mutant, mirror_of
from nas.files import csv_text, write_atomic

HEADS = (
    "file", "line", "column", "operator", "occurrence", "before", "after", "outcome", "noticed_by", "cpu_seconds", "commit",
    "processor",
)  # fmt: skip
UNNOTICED = ("survived", "no test reaches it")


@dataclass(frozen=True)
class Outcome:
    """What came of one change: killed, timeout (noticed too), survived, or no test reaches it."""

    mutant: Mutant
    before: str
    after: str
    outcome: str
    noticed_by: str
    cpu_seconds: float
    commit: str
    processor: str

    @property
    def noticed(self) -> bool:
        return self.outcome not in UNNOTICED

    def told(self) -> str:
        """One line for the screen."""
        place, change = f"{self.mutant.file}:{self.mutant.line}", f"{self.before!r} -> {self.after!r}"
        return f"{self.outcome} {place} {change} ({self.cpu_seconds:.1f} s)"


def write_outcomes(path: Path, outcomes: Iterable[Outcome]) -> None:
    """The table, by place."""
    rows = []
    for each in sorted(outcomes, key=lambda outcome: outcome.mutant):
        place = each.mutant
        rows.append(
            (place.file, place.line, place.column, place.operator, place.occurrence, each.before, each.after, each.outcome,
             each.noticed_by, each.cpu_seconds, each.commit, each.processor)
        )  # fmt: skip
    write_atomic(path, csv_text([HEADS, *rows]))


def read_outcomes(path: Path) -> list[Outcome]:
    """The table again."""
    with path.open(newline="") as file:
        return [
            Outcome(
                Mutant(row["file"], int(row["line"]), int(row["column"]), row["operator"], int(row["occurrence"])),
                row["before"], row["after"], row["outcome"], row["noticed_by"], float(row["cpu_seconds"]), row["commit"],
                row["processor"],
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def rate_lines(outcomes: Iterable[Outcome], drawn: int) -> list[str]:
    """What was noticed of how many, in all and by room."""
    judged, noticed = Counter[str](), Counter[str]()
    for each in outcomes:
        room = mirror_of(each.mutant.file)
        judged[room] += 1
        noticed[room] += each.noticed
    total = sum(judged.values())
    share = 100 * sum(noticed.values()) / max(1, total)
    lines = [f"{sum(noticed.values())} of {total} changes were noticed ({share:.1f} %); {drawn} are drawn"]
    return lines + [
        f"{noticed[tests]:4d} of {judged[tests]:4d}  {source}" for source, tests in MIRRORS.items() if judged[tests]
    ]
