"""The bench's table: one record a trained detector, added one by one by any number of workers, merged between machines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.packed import read_packed, write_packed
from nas.errors import UserError
from nas.spec import DetectorSpec, digest, from_dict, to_dict

PATH = Path(__file__).with_name("bench.jsonl.gz")
Key = tuple[str, str, int, str]


@dataclass(frozen=True, slots=True)
class Run:
    """One training.

    data, seed, recipe: what it was trained on and how (digest of the recipe, image_size and epochs beside it; precision:
    the one that the processor is fast in, no part of the digest). name, family, space, score, band_ms, latency_ms, table:
    as in Network, latency predicted at 320 pixels. digest, spec: the network, with 6 classes at 320 pixels; the training
    gives it those of the data. curve: (epoch, AP, AP50) of the averaged weights on val; test_ap, test_ap50: of the last
    averaged weights on test. seconds: of the training, wall clock, other work on the machine included; cpu_seconds: of its
    process (less where `sittings` > 1: those of the last). measured_ms: of the exported file at the data's size and
    classes, ONNX Runtime on one thread, measured_on: how; both None until measured. scores, counts: of the network.
    machine: processor, versions, date, commit.
    """

    data: str
    name: str
    family: str
    space: str
    score: str
    band_ms: float
    latency_ms: float
    table: str
    digest: str
    spec: DetectorSpec
    seed: int
    recipe: str
    image_size: int
    epochs: int
    curve: tuple[tuple[int, float, float], ...]
    test_ap: float
    test_ap50: float
    seconds: float
    cpu_seconds: float
    sittings: int
    scores: dict[str, float]
    counts: dict[str, float]
    machine: dict[str, Any]
    precision: str = "fp32"
    measured_ms: float | None = None
    measured_on: dict[str, Any] | None = None

    @property
    def key(self) -> Key:
        """What no two records of a table share."""
        return self.data, self.digest, self.seed, self.recipe

    @property
    def val_ap(self) -> float:
        """Validation AP at the end."""
        return self.curve[-1][1]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, one line of the file."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"spec": to_dict(self.spec)}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Run:
        """The run of a line; UserError if its digest is another one, or a field is missing."""
        try:
            spec = from_dict(row["spec"])
            curve = tuple((int(epoch), float(ap), float(ap50)) for epoch, ap, ap50 in row["curve"])
            run = cls(**{**row, "spec": spec, "curve": curve})
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"not a run of the bench: {error}") from None
        if digest(run.spec) != run.digest:
            raise UserError(f"run {run.name} on {run.data}: the digest does not belong to its spec")
        return run


def load(path: str | Path = PATH, data: str | None = None) -> tuple[Run, ...]:
    """The runs of a table (the shipped one unless told), of one data set if given, in a fixed order.

    UserError for a file that is missing or damaged.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist: python -m experiments.detector_bench train makes it")
    runs = map(Run.from_dict, read_packed(Path(path)))
    return tuple(run for run in runs if data in (None, run.data))


def add_runs(path: Path, runs: Iterable[Run]) -> int:
    """Put runs into a table, whoever else writes to it; returns how many are new.

    A run that is there already stays, and takes over a measurement that it lacks.
    """
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        known = {run.key: run for run in map(Run.from_dict, read_packed(path))}
        before = len(known)
        for run in runs:
            old = known.setdefault(run.key, run)
            if old.measured_ms is None and run.measured_ms is not None:
                known[run.key] = replace(old, measured_ms=run.measured_ms, measured_on=run.measured_on)
        write_packed(path, [known[key].to_dict() for key in sorted(known)])
    return len(known) - before
