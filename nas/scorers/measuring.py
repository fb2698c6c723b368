"""Measures zero-cost scores: the passes that answer them, one network in memory at a time, into a file that can be resumed.

torch is imported where a network is built.
"""

from __future__ import annotations

import csv
import gzip
import random
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cost.count import count_spec
from nas.errors import UserError
from nas.scorers import ENSEMBLES, ZERO_COST
from nas.scorers.base import SEEN, Scorer, number
from nas.scorers.score_log import ScoreLog
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


@dataclass(frozen=True, slots=True)
class Pass:
    """One trip through a network, and the scorers that it answers together."""

    name: str
    scorer: Scorer
    answers: tuple[str, ...]

    @property
    def reads_images(self) -> bool:
        return self.scorer.needs == "module and images"


def passes_for(names: Iterable[str], own: Sequence[Scorer] = ()) -> tuple[Pass, ...]:
    """The fewest passes that answer the named zero-cost scorers and ensembles, in a fixed order, and then one's own.

    Raises UserError with the known names for another name.
    """
    known = {scorer.name: scorer for scorer in ZERO_COST}
    wanted: set[str] = set()
    for name in names:
        members = ENSEMBLES.get(name, (name,))
        wanted.update(member for member in members if member != "macs")
        if name not in known and name not in ENSEMBLES:
            raise UserError(f"unknown zero-cost scorer {name!r}; known: {', '.join([*known, *ENSEMBLES])}")
    result = []
    for path in dict.fromkeys(scorer.path for scorer in ZERO_COST if scorer.shared):
        answers = tuple(scorer.name for scorer in ZERO_COST if scorer.path == path)
        if wanted & set(answers):
            name = str(path).partition(":")[2]
            result.append(Pass(name, replace(known[answers[0]], name=name, shared=False), answers))
            wanted -= set(answers)
    result += [Pass(name, known[name], (name,)) for name in known if name in wanted]
    return (*result, *(Pass(scorer.name, scorer, (scorer.name,)) for scorer in own))


@dataclass(frozen=True, slots=True)
class Protocol:
    """What a score depends on besides the network and the seed.

    inputs: "gaussian" or a folder of pictures; image_size: 0 takes the network's own.
    Weights are PyTorch's default initialisation from the seed (zen and AZ-NAS draw their own).
    """

    batch: int = 16
    inputs: str = "gaussian"
    image_size: int = 0

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(
    subject: Subject, step: Pass, protocol: Protocol, seed: int, options: Mapping[str, object] | None = None
) -> dict[str, float]:
    """The scores of one pass on a network built afresh from the seed; options: those of the scorer.

    Raises UserError that names network and scorer where the network cannot be scored.
    """
    import torch

    from nas.scorers.probe import scorer_images

    side = image_side(subject, protocol.image_size or None)
    torch.manual_seed(seed)
    model = subject.build()
    # Scorers that take only the shape of the images get no pictures drawn for them.
    images = (
        scorer_images(protocol.inputs, protocol.batch, side, seed)
        if step.reads_images
        else torch.zeros(protocol.batch, 3, side, side)
    )
    try:
        known = {name: value for name, value in (("images", images), ("seed", seed)) if name in step.scorer.takes}
        answer = step.scorer(model, **known, **(options or {}))
    except (UserError, RuntimeError, ValueError) as error:
        raise UserError(f"scorer {step.name} failed on {subject.name}: {str(error).splitlines()[0]}") from error
    return answer if isinstance(answer, dict) else {step.name: number(step.name, answer)}


def score_built(scorer: Scorer, spec: Spec, side: int, options: Mapping[str, object]) -> float:
    """The score of a spec's network by a scorer of modules: built from seed 0, on 16 Gaussian images of `side` pixels.

    options: of the scorer, or of what it sees (another `batch`, pictures of a folder as `inputs`). One thread computes it,
    so that the number is the same in every process.
    """
    import torch

    step = Pass(scorer.name, scorer, (scorer.name,))
    seen: dict[str, Any] = {name: value for name, value in options.items() if name in SEEN and name not in scorer.takes}
    own = {name: value for name, value in options.items() if name not in seen}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure(spec_subject("the network", spec, side), step, Protocol(**seen), 0, own)[scorer.name]
    finally:
        torch.set_num_threads(threads)


def score_module(scorer: Scorer, module: nn.Module, side: int, options: Mapping[str, object]) -> float:
    """The score of a torch module, which stays as it is, by a scorer of modules, on 16 Gaussian images."""
    subject = Subject("the module", {}, lambda: deepcopy(module), side)
    return measure(subject, Pass(scorer.name, scorer, (scorer.name,)), Protocol(), 0, options)[scorer.name]


def measure_all(
    subjects: Iterable[Subject],
    passes: tuple[Pass, ...],
    protocol: Protocol,
    log: ScoreLog,
    seeds: Callable[[int], int],
    progress: Callable[[], None] = lambda: None,
) -> int:
    """Fill the log with the passes of every network for seeds 0 .. seeds(position) - 1; returns the new lines.

    What the log holds already is skipped. An interruption loses at most the network in work.
    """
    written = 0
    for position, subject in enumerate(subjects):
        for seed in range(seeds(position)):
            scores: dict[str, float] = {}
            seconds: dict[str, float] = {}
            for step in passes:
                if log.missing(subject.key, seed, step.answers):
                    start = time.perf_counter()
                    scores |= measure(subject, step, protocol, seed)
                    seconds[step.name] = time.perf_counter() - start
            if scores:
                log.add(subject.key, seed, scores, seconds)
                written += 1
        progress()
    return written
