"""What of the tables is still to be trained, and in which order: teachers before their students.

Many rows of different tables are the same training (DAMO-YOLO-S stands in eight of them): it is done once, and its line
serves all of them. Lines and folders carry the digest of their recipe, so a row that is edited is missing again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments.data import keep_drawn_out, results_place
from experiments.scales import Scale, data_of, load_scale, scale_names, training_recipe
from experiments.tables import Row, Table, load_table, table_names
from nas.files import read_rows, write_atomic

COLUMNS = ("table", "row", "scale", "seed", "data", "recipe", "ap", "ap50", "steps", "train_seconds", "seconds", "device",
           "torch", "commit", "date")  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One training: a recipe, the rows that it serves (named by the first), a seed, and its teacher's job."""

    recipe: str
    rows: tuple[tuple[Table, Row], ...]
    seed: int
    scale: Scale
    data: str
    output: Path
    teacher: Job | None = None

    @property
    def table(self) -> Table:
        return self.rows[0][0]

    @property
    def row(self) -> Row:
        return self.rows[0][1]

    @property
    def folder(self) -> Path:
        """Where its checkpoints lie, also after an interruption."""
        place = self.output / self.scale.name / self.data / self.table.name
        return place / f"{self.row.key}-{self.recipe}" / f"seed{self.seed}"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "best.safetensors"

    @property
    def finished(self) -> bool:
        """Whether its checkpoint and its result lie under `output`."""
        return (self.folder / "result.json").exists()

    @property
    def taken(self) -> bool:
        """Whether another process trains in its folder."""
        if not self.folder.exists():
            return False
        try:
            with FileLock(self.folder / "lock", timeout=0):
                return False
        except Timeout:
            return True

    def words(self) -> list[str]:
        """Its overrides of `experiments.train_row`."""
        values = {"table": self.table.name, "row": self.row.name, "data": self.data, "hydra.run.dir": self.folder}
        values |= {"teacher": self.teacher.checkpoint} if self.teacher else {}
        return [
            f"scale={self.scale.name}",
            f"seed={self.seed}",
            *(f"{name}='{value}'" for name, value in values.items()),
        ]


class Trainings:
    """The trainings that the rows of all tables stand for at one scale; `output` is the folder of their checkpoints.

    `place` is the folder of their lines: experiments/results, or a folder of `output` where the data is drawn. Raises
    UserError if that lies in experiments/results.
    """

    def __init__(self, scale: Scale, output: Path = Path("outputs/experiments")) -> None:
        self.scale, self.output, self.data = scale, output.resolve(), data_of(scale)
        self.place = results_place(self.data, self.output)
        self.recipes: dict[tuple[str, str], str] = {}
        self.rows: dict[str, list[tuple[Table, Row]]] = {}
        for table in map(load_table, table_names()):
            for row in table.rows:
                recipe = training_recipe(table, row, scale)
                self.recipes[table.name, row.name] = recipe
                self.rows.setdefault(recipe, []).append((table, row))

    def job(self, recipe: str, seed: int) -> Job:
        """The training of a recipe with a seed."""
        rows = self.rows[recipe]
        table, row = rows[0]
        teacher = self.job(self.recipes[table.name, row.teacher], seed) if row.teacher else None
        return Job(recipe, tuple(rows), seed, self.scale, self.data, self.output, teacher)

    def results(self, table: str, place: Path | None = None) -> list[dict[str, str]]:
        """The lines of a table (in another folder's file) at this scale that belong to its rows as they are now."""
        lines = (line for line in read_results(table, place or self.place) if line["scale"] == self.scale.name)
        return [line for line in lines if self.recipes.get((table, line["row"])) == line["recipe"]]

    def missing(self, tables: Sequence[str]) -> list[Job]:
        """Trainings without a result, seed by seed so that every row has one result early, teachers first.

        A teacher with a result but no checkpoint under `output` (a fresh clone) is trained again for its students.
        """
        known = (line for name in table_names() for line in self.results(name))
        done = {(line["recipe"], int(line["seed"])) for line in known if line["data"] == self.data}
        jobs: dict[tuple[str, int], Job] = {}

        def want(job: Job) -> None:
            if job.teacher and not job.teacher.finished:
                want(job.teacher)
            jobs.setdefault((job.recipe, job.seed), job)

        for seed in self.scale.seeds:
            for name in tables:
                for (table, _), recipe in self.recipes.items():
                    if table == name and (recipe, seed) not in done:
                        want(self.job(recipe, seed))
        return list(jobs.values())

    def share(self) -> None:
        """Give every row the lines of the rows that are the same training."""
        lines: dict[str, list[dict[str, str]]] = {recipe: [] for recipe in self.rows}
        for name in table_names():
            for line in self.results(name):
                lines[line["recipe"]].append(line)
        for name in table_names():
            rows = [(row, recipe) for (table, row), recipe in self.recipes.items() if table == name]
            shared = (line | {"table": name, "row": row} for row, recipe in rows for line in lines[recipe])
            add_results(name, shared, self.place)


def overview(output: Path) -> str:
    """What there is: the tables with their rows, and how many trainings each of them lacks at every scale."""
    scales = [load_scale(name) for name in scale_names()]
    every = [Trainings(scale, output) for scale in scales]
    lines = [f"{'trainings that are missing':28}" + "".join(f"{scale.name:>8}" for scale in scales)]
    for table in map(load_table, table_names()):
        lines.append(f"{table.name:28}" + "".join(f"{len(each.missing([table.name])):8}" for each in every))
        lines.append(f"  {'; '.join(row.name for row in table.rows)}")
    lines += ["", "scales"]
    lines += [f"  {each.scale.name:8}{each.scale.note}; data: {each.data}" for each in every]
    return "\n".join(lines)


def read_results(table: str, place: Path) -> list[dict[str, str]]:
    """All lines of a table so far, whatever their recipe; `place` is the folder of the tables' files."""
    return read_rows(place / f"{table}.csv")


def add_results(table: str, lines: Iterable[Mapping[str, Any]], place: Path) -> None:
    """Add lines to a table's file, all or none. A training keeps the line that it has; another recipe's line is replaced.

    Raises UserError for a line on drawn data that would come to stand in experiments/results.
    """
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / ".lock"):
        before = {_training(line): line for line in read_results(table, place)}
        after = dict(before)
        for line in lines:
            added = {key: str(line[key]) for key in COLUMNS}
            keep_drawn_out(added["data"], place)
            if after.get(_training(added), {}).get("recipe") != added["recipe"]:
                after[_training(added)] = added
        if after != before:
            text = io.StringIO()
            writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(after.values())
            write_atomic(place / f"{table}.csv", text.getvalue())


def _training(line: Mapping[str, str]) -> tuple[str, str, int, str]:
    """Which training a line of a table's file is about."""
    return line["row"], line["scale"], int(line["seed"]), line["data"]
