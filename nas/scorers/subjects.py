"""What zero-cost scorers are run on: specs and the networks of tabular benchmarks, built one at a time.

torch is imported when a network is built, not before.
"""

from __future__ import annotations

import csv
import gzip
import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cost.count import count_spec
from nas.errors import UserError
from nas.spec import Backbone, Spec, digest, image_side
from search_spaces import tabular

if TYPE_CHECKING:
    from torch import nn

#: Benchmark name -> (table file, accuracy columns in per cent).
BENCHMARKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "nasbench201": ("nb201_accuracy.csv.gz", ("c10_test_e200", "c100_test_e200")),
    "nasbench_macro": ("nasbench_macro_cifar10.csv.gz", ("mean_acc",)),
}


@dataclass(frozen=True)
class Subject:
    """A network by name: its counts, its accuracies in [0, 1] where known, and how to build it afresh."""

    name: str
    counts: Mapping[str, float]
    build: Callable[[], nn.Module]
    image_size: int = 32
    spec: Spec | None = None
    accuracy: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What its scores are kept under: a file that is edited under its old name is another network."""
        return self.name if self.spec is None else f"{self.name}@{digest(self.spec)}"


def spec_subject(name: str, spec: Spec, image_size: int | None = None) -> Subject:
    """A backbone or detector as it is deployed: parallel branches, which exist in training alone, are left out."""
    side = image_side(spec, image_size)
    counts = count_spec(spec, image_size=side)

    def build() -> nn.Module:
        if isinstance(spec, Backbone):
            from nas.models.backbone import BackboneModule

            return BackboneModule(replace(spec, reparam=False))
        from nas.models.detector import build_detector

        return build_detector(replace(spec, backbone=replace(spec.backbone, reparam=False)))

    figures = {"params": counts.params, "macs": counts.macs, "layers": counts.layers}
    return Subject(name, figures, build, side, spec)


def benchmark_rows(name: str, tables: Path) -> list[dict[str, str]]:
    """The rows of a benchmark's table. Raises UserError for an unknown benchmark or a folder without its file."""
    if name not in BENCHMARKS:
        raise UserError(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    file, accuracies = BENCHMARKS[name]
    return read_table(tables / file, ("arch", *accuracies))


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a packed CSV file; raises UserError if it is missing, damaged, or lacks one of the columns."""
    if not path.is_file():
        raise UserError(f"{path} is missing: point tables= to the folder of the benchmark tables")
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}); fetch it again") from None
    lacking = [column for column in columns if column not in (reader.fieldnames or ())]
    if lacking:
        raise UserError(f"{path} lacks the column {lacking[0]}")
    return rows


def benchmark_subjects(name: str, tables: Path, sample: int = 0, seed: int = 0) -> Iterator[Subject]:
    """Networks of a benchmark in a seeded random order (so that any beginning is a fair sample); 0 takes all."""
    rows = benchmark_rows(name, tables)
    random.Random(seed).shuffle(rows)
    columns = BENCHMARKS[name][1]
    for row in rows[: sample or None]:
        accuracy = {column: float(row[column]) / 100 for column in columns}
        yield _benchmark_subject(name, row["arch"], accuracy)


def _benchmark_subject(name: str, text: str, accuracy: dict[str, float]) -> Subject:
    net = tabular.Cell.parse(text) if name == "nasbench201" else tabular.MacroNet.parse(text)
    counts = net.counts()
    figures: dict[str, float] = {"params": counts.params, "macs": counts.macs, "layers": counts.layers}
    if isinstance(net, tabular.Cell):
        figures["depth"] = net.depth
        # The MAE score read along the path of greatest gain: what is left of it where width and cell count are fixed.
        figures["mae_path"] = sum(net.path_gain(width) for width, _ in tabular.STAGES)

    def build() -> nn.Module:
        from nas.models.nasbench import CellNetwork, MacroNetwork

        return CellNetwork(net.edges) if isinstance(net, tabular.Cell) else MacroNetwork(net.choices)

    return Subject(text, figures, build, accuracy=accuracy)
