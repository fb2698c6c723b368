"""What of the tables is still to be trained, and in which order: teachers before their students."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from experiments.data import available
from experiments.scales import Scale
from experiments.tables import FOLDER, Row, Table, load_table
from nas.files import read_text, write_atomic

RESULTS = FOLDER / "results"
COLUMNS = ("table", "row", "scale", "seed", "data", "ap", "ap50", "steps", "train_seconds", "seconds", "device", "torch",
           "commit", "date")  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One training: a row, a seed, a scale; `folder` holds its checkpoints, also after an interruption."""

    table: Table
    row: Row
    seed: int
    scale: Scale
    data: str
    output: Path

    @property
    def folder(self) -> Path:
        return self.output / self.scale.name / self.data / self.table.name / self.row.key / f"seed{self.seed}"

    @property
    def teacher(self) -> Job | None:
        """The job whose checkpoint teaches this one."""
        if not self.row.teacher:
            return None
        return Job(self.table, self.table.row(self.row.teacher), self.seed, self.scale, self.data, self.output)

    @property
    def finished(self) -> bool:
        """Whether its checkpoint and its result lie under `output`."""
        return (self.folder / "result.json").exists()

    def command(self) -> list[str]:
        """Arguments of `experiments.train_row`."""
        teacher = self.teacher
        path = str(teacher.folder / "best.safetensors") if teacher else ""
        return [self.table.name, self.row.name, str(self.seed), self.scale.name, str(self.folder), path, self.data]


def results_file(table: str) -> Path:
    """Where the lines of a table lie."""
    return RESULTS / f"{table}.csv"


def read_results(table: str) -> list[dict[str, str]]:
    """All lines of a table so far."""
    path = results_file(table)
    return list(csv.DictReader(io.StringIO(read_text(path)))) if path.exists() else []


def append_result(line: Mapping[str, Any]) -> None:
    """Add one line to its table's file, whole or not at all; a run that has a line keeps it."""
    added = {key: str(line[key]) for key in COLUMNS}
    with FileLock(RESULTS / ".lock"):
        lines = read_results(line["table"])
        if _run(added) in map(_run, lines):
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*lines, added])
        write_atomic(results_file(line["table"]), text.getvalue())


def data_of(scale: Scale) -> str:
    """The scale's data set, or the drawn one where it is not at hand (COCO is never replaced)."""
    return scale.data if scale.data == "coco" or available(scale.data) else "shapes"


def _run(line: Mapping[str, str]) -> tuple[str, str, int, str]:
    """Which training a line of a table's file is about."""
    return line["row"], line["scale"], int(line["seed"]), line["data"]


def missing_jobs(tables: Sequence[str], scale: Scale, output: Path) -> list[Job]:
    """Jobs without a result, seed by seed so that every row has one result early, teachers first.

    A teacher with a result but no checkpoint under `output` (a fresh clone) is trained again for its students.
    """
    data = data_of(scale)
    jobs: list[Job] = []
    for seed in scale.seeds:
        for name in tables:
            table = load_table(name)
            done = set(map(_run, read_results(name)))
            rows = sorted(table.rows, key=lambda row: _generation(table, row))
            chosen: list[Job] = []
            for job in (Job(table, row, seed, scale, data, output) for row in reversed(rows)):
                wanted = any(job == student.teacher for student in chosen) and not job.finished
                if wanted or (job.row.name, scale.name, seed, data) not in done:
                    chosen.append(job)
            jobs += reversed(chosen)
    return jobs


def _generation(table: Table, row: Row) -> int:
    """0 for a row without teacher, one more than its teacher's otherwise."""
    return 1 + _generation(table, table.row(row.teacher)) if row.teacher else 0
