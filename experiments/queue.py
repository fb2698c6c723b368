"""What of the tables is still to be trained, and in which order: teachers before their students.

Many rows of different tables are the same training (DAMO-YOLO-S stands in eight of them): it is done once, and its line
serves all of them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from experiments.data import data_of
from experiments.scales import Scale, load_scale, training_recipe
from experiments.tables import FOLDER, Row, Table, load_table, table_names
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
        table, row = equal_rows(self.table.name, self.row.teacher, self.scale.name)[0]
        return Job(table, row, self.seed, self.scale, self.data, self.output)

    @property
    def finished(self) -> bool:
        """Whether its checkpoint and its result lie under `output`."""
        return (self.folder / "result.json").exists()

    def command(self) -> list[str]:
        """Arguments of `experiments.train_row`."""
        words = {"table": self.table.name, "row": self.row.name, "seed": self.seed, "data": self.data}
        words |= {"teacher": self.teacher.folder / "best.safetensors"} if self.teacher else {}
        quoted = [f"{name}='{value}'" if isinstance(value, (str, Path)) else f"{name}={value}" for name, value in words.items()]
        return [*quoted, f"scale={self.scale.name}", f"hydra.run.dir='{self.folder}'"]


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


def equal_rows(table: str, row: str, scale: str) -> tuple[tuple[Table, Row], ...]:
    """All rows of all tables that are the same training as this one at that scale, in the order of the tables."""
    groups = _groups(scale)
    return next(group for group in groups if any((t.name, r.name) == (table, row) for t, r in group))


def share_results(scale: Scale) -> None:
    """Give every row without a line the line of an equal row."""
    for group in _groups(scale.name):
        lines = [line for table, row in group for line in _lines(table, row, scale)]
        for table, row in group:
            for line in lines:
                append_result(line | {"table": table.name, "row": row.name})


def missing_jobs(tables: Sequence[str], scale: Scale, output: Path) -> list[Job]:
    """Trainings without a result, seed by seed so that every row has one result early, teachers first.

    A teacher with a result but no checkpoint under `output` (a fresh clone) is trained again for its students.
    """
    data = data_of(scale)
    jobs: list[Job] = []
    for seed in scale.seeds:
        wanted: list[Job] = []
        for name in tables:
            for row in load_table(name).rows:
                group = equal_rows(name, row.name, scale.name)
                job = Job(*group[0], seed, scale, data, output)
                lines = (line for pair in group for line in _lines(*pair, scale))
                if job not in wanted and not any((int(line["seed"]), line["data"]) == (seed, data) for line in lines):
                    wanted.append(job)
        for job in wanted:  # which grows while it is read: teachers of teachers
            if job.teacher and not job.teacher.finished and job.teacher not in wanted:
                wanted.append(job.teacher)
        jobs += sorted(wanted, key=_generation)
    return jobs


def _run(line: Mapping[str, str]) -> tuple[str, str, int, str]:
    """Which training a line of a table's file is about."""
    return line["row"], line["scale"], int(line["seed"]), line["data"]


def _lines(table: Table, row: Row, scale: Scale) -> Iterator[dict[str, str]]:
    return (line for line in read_results(table.name) if (line["row"], line["scale"]) == (row.name, scale.name))


def _generation(job: Job) -> int:
    """0 for a job without teacher, one more than its teacher's otherwise."""
    return 1 + _generation(job.teacher) if job.teacher else 0


@lru_cache
def _groups(scale: str) -> tuple[tuple[tuple[Table, Row], ...], ...]:
    """The rows of all tables, those of one training together."""
    groups: dict[str, list[tuple[Table, Row]]] = {}
    for table in map(load_table, table_names()):
        for row in table.rows:
            groups.setdefault(training_recipe(table, row, load_scale(scale)), []).append((table, row))
    return tuple(map(tuple, groups.values()))
