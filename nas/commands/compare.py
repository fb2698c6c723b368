"""Puts any mix of detectors into one table: names, specs, checkpoints, exported files and published rows."""

from __future__ import annotations

import difflib
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from nas.commands.search import named
from nas.config import compose_config
from nas.cost.latency import LatencyTable, after_network
from nas.cost.table_file import DEFAULT_TABLE
from nas.deploy import EXPORTED, load_runtime
from nas.errors import UserError
from nas.files import is_spec_file
from nas.lowering import Operation
from nas.options import Name, Pixels, Threads
from nas.report.detector_plots import write_comparison
from nas.report.detector_table import (
    DIFFERENCES,
    Entry,
    Figure,
    PublishedRow,
    frontier_at,
    frontier_rows,
    published_rows,
)
from nas.scorers import find_scorer, score_spec
from nas.spec import Backbone, DetectorSpec, Spec, backbone_of, image_side
from search_spaces.published import load_published

if TYPE_CHECKING:
    from torch import nn

GROUPS = ("seeds",)
FILES = (".yaml", ".yml", ".safetensors", *EXPORTED)
#: Latency tables of other engines than the default, by what the source of a published row says.
OTHER_TABLES = {"TensorRT 7": "t4_tensorrt7_fp16"}
YOLOV5 = (
    "The milliseconds and APs published for YOLOv5 are probably those of the original anchor-based models (which have "
    "fewer FLOPs), printed beside the parameters and FLOPs of the anchor-free ones that are built here."
)
DEPLOYED = "counted, deployed form (branches merged, BN folded)"
TRAINING = "counted, training form"
MACS = "counted, deployed form, 2 x MACs of convolutions, linear layers and matrix products"


@dataclass(frozen=True)
class CompareSettings:
    """What `python -m nas.compare` is told.

    models: names, spec files, checkpoints, exported files, mixed at will; group: "seeds" for every published row beside
    our counts; hardware: a latency table; image_size: pixels, None for each model's own; scorer: `name` and options of a
    training-free score of the specs (conf/scorer), None for none; measure: also time each on this machine (median of
    `repeats` runs of one image, `threads` threads); ap: AP in percent of our own runs, by model as given; folder: where
    compare.md, .csv, .png and .html go.
    """

    models: tuple[Name, ...] = ()
    group: Name | None = None
    hardware: Name = DEFAULT_TABLE
    image_size: Pixels | None = None
    scorer: dict[str, Any] | None = None
    measure: bool = False
    repeats: Annotated[int, Ge(1), Le(1_000_000)] = 10
    threads: Threads = 1
    ap: dict[str, Annotated[float, Ge(0), Le(100)]] = field(default_factory=dict)
    folder: Path = Path("outputs/compare")


def run_comparison(settings: CompareSettings) -> str:
    """Gather all entries, write the report into `settings.folder`, and return its Markdown.

    Raises UserError, before any counting, for an unknown group or scorer, a missing file, or nothing to compare.
    """
    if settings.group is not None and settings.group not in GROUPS:
        raise UserError(f"unknown group {settings.group!r}; known: {', '.join(GROUPS)}")
    if not settings.models and settings.group is None:
        raise UserError("nothing to compare: give models=[damo-yolo-s,yolo11s] (names or files) or group=seeds")
    if settings.scorer is not None:
        name, options = named(settings.scorer, "scorer")
        find_scorer(name).check_options(options)
    for model in settings.models:
        check_model(model)
    gatherer = Gatherer(settings)
    entries = [gatherer.entry(model) for model in settings.models]
    entries = [
        replace(entry, name=name) for entry, name in zip(entries, distinct(entries, settings.models), strict=True)
    ]
    if settings.group == "seeds":
        entries += [gatherer.published_entry(row) for row in published_rows()]
    title = "Published detectors beside our counts and predictions" if settings.group else "Comparison of detectors"
    entries, told = scored_within_one_family(entries)
    frontier = frontier_rows() if settings.hardware == DEFAULT_TABLE else ()
    if frontier:
        told = frontier_notes(entries[: len(settings.models)]) + told
    return write_comparison(entries, title, settings.folder, [*told, *notes(entries), *gatherer.problems], frontier)


def compared(models: Sequence[str | Path], folder: str | Path = "outputs/compare", **options: object) -> str:
    """Detectors side by side, as `python -m nas.compare`: the table as Markdown; files of it are left in `folder`.

    models: names, specs, checkpoints, exported files; options: the settings of that command (image_size, scorer ...).
    """
    given = {"models": [str(model) for model in models], "folder": str(folder), **options}
    return run_comparison(compose_config("compare", CompareSettings, given))


def distinct(entries: Sequence[Entry], models: Sequence[str]) -> Iterator[str]:
    """The names of the rows, with the file's folder before those that several files share."""
    names = [entry.name for entry in entries]
    for name, model in zip(names, models, strict=True):
        shared = names.count(name) > 1 and (model.endswith(FILES) or is_spec_file(model))
        yield f"{Path(model).resolve().parent.name}/{name}" if shared else name


def check_model(model: str) -> None:
    """Raise UserError unless `model` is an existing file of a known kind or a known name."""
    from nas.models.baselines import BASELINES, canonical_name
    from search_spaces.published import is_published, published_names

    if model.endswith(FILES) or is_spec_file(model):
        if not Path(re.sub(r"(?<=\.jsonl):\d+$", "", model)).is_file():
            raise UserError(f"{model}: no such file")
    elif not is_published(model) and canonical_name(model) is None:
        near = difflib.get_close_matches(model.lower(), [*published_names(), *BASELINES], 4, 0.4)
        hint = f"; did you mean {', '.join(near)}?" if near else f" (files end in {', '.join(FILES)})"
        raise UserError(f"no file and no model is called {model!r}{hint}")


def scored_within_one_family(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """The entries with a score only beside those of the first scored one's kind, and the sentence that says so.

    A score of untrained networks orders blocks of one kind at one image size; across kinds it means nothing.
    """
    kinds = [entry.figures["score"].source for entry in entries if "score" in entry.figures]
    others = [entry.name for entry in entries if "score" in entry.figures and entry.figures["score"].source != kinds[0]]
    kept = [
        entry
        if entry.name not in others
        else replace(entry, figures={key: value for key, value in entry.figures.items() if key != "score"})
        for entry in entries
    ]
    told = (
        f"Scores compare networks of one family: only the {kinds[0]} is shown, not that of {', '.join(others)}."
        if others
        else ""
    )
    return kept, [told] * bool(told)


def frontier_notes(entries: Sequence[Entry]) -> list[str]:
    """Beside each network what the frontier reaches in its milliseconds."""
    told = []
    for entry in entries:
        ms = entry.value("predicted_ms")
        best = None if ms is None else frontier_at(ms)
        if ms is not None and best is not None:
            told.append(
                f"{entry.name}, {ms:.2f} ms predicted without NMS: in that time the frontier has {best.model}, "
                f"{best.ap:.1f} COCO AP at {best.ms:.2f} ms ({best.protocol})."
            )
    return told


def notes(entries: list[Entry]) -> Iterator[str]:
    """What the differences amount to."""
    differences = [abs(value) for entry in entries if (value := entry.value("ms_difference")) is not None]
    if len(differences) > 1:
        yield (
            f"Predicted against published milliseconds: mean {statistics.fmean(differences):.1f} %, median "
            f"{statistics.median(differences):.1f} %, largest {max(differences):.1f} % over {len(differences)} rows."
        )
    if any(entry.family == "yolov5" and "published_ms" in entry.figures for entry in entries):
        yield YOLOV5


class Gatherer:
    """Finds out everything about one model at a time; equal models are counted once."""

    def __init__(self, settings: CompareSettings) -> None:
        self.settings = settings
        self.table = LatencyTable.load(settings.hardware)
        self.problems: list[str] = []
        self._known: dict[str, Entry] = {}
        self._operations: dict[str, Sequence[Operation]] = {}

    def entry(self, model: str) -> Entry:
        """The row of a name or file, with published figures where the name has any at this image size."""
        from nas.models.baselines import canonical_name

        entry = self._exported(model) if model.endswith(EXPORTED) else self._own(model)
        own = self.settings.ap.get(model)
        if own is not None:
            entry.figures["ap_own"] = Figure(float(own), "our own run, as given on the command line")
        name = canonical_name(model) or model
        row = next((row for row in published_rows() if (row.model, row.image_size) == (name, entry.image_size)), None)
        return with_published(entry, row) if row else entry

    def published_entry(self, row: PublishedRow) -> Entry:
        """The row of a published model, with the figures of that source and the table of its engine."""
        if row.model not in self._known:
            try:
                check_model(row.model)
                self._known[row.model] = self._own(row.model)
            except UserError as error:  # a family not drawn here, or whose package is missing, keeps published figures
                self.problems.append(f"{row.model}: published figures alone, {error}.")
                self._known[row.model] = Entry(row.model, row.family, row.image_size, {})
                self._operations[row.model] = ()
        entry = replace(self._known[row.model], family=row.family)
        other = next((table for engine, table in OTHER_TABLES.items() if engine in row.source), None)
        if other is not None and self.settings.hardware == DEFAULT_TABLE and self._operations[row.model]:
            predicted = self._predicted(self._operations[row.model], LatencyTable.load(other))
            name = f"{row.model} ({row.source.split(' (')[0]})"
            entry = replace(entry, name=name, figures=entry.figures | predicted, drawn=False)
        return with_published(entry, row)

    def _own(self, model: str) -> Entry:
        from nas.models.build import build_model
        from search_spaces.published import is_published

        if is_spec_file(model) or is_published(model):
            from nas.api import load

            spec = load(model)
            side = image_side(spec, self.settings.image_size)
            name = Path(model).stem if is_spec_file(model) else model
            return Entry(name, family_of(name), side, self._figures(spec, side, model, spec))
        if model.endswith(".safetensors"):
            module: Any = build_model(model)
            name = f"{getattr(module, 'name', '') or 'searched'} ({Path(model).stem})"
        else:
            module, name = weightless(model), model
        side = image_side(module, self.settings.image_size)
        own = getattr(module, "spec", None)
        if own is not None:
            figures = self._figures(own, side, model, own)
        else:
            backbone = drawn_backbone(module.name)
            figures = self._figures(module, side, model, load_published(backbone) if backbone else None)
        if model.endswith(".safetensors"):
            figures |= checkpoint_figures(model)
        return Entry(name, family_of(name), side, figures)

    def _figures(self, network: Spec | nn.Module, side: int, model: str, scored: Spec | None) -> dict[str, Figure]:
        """Counts, predicted and measured milliseconds of a spec or a module, and the score of its spec if it has one."""
        from nas.api import count, deployed_operations
        from nas.models.build import build_model

        deployed, train = count(network, "folded", side), count(network, "train", side)
        self._operations[model] = deployed_operations(network, side)
        figures = {
            "params_m": Figure(deployed.params / 1e6, DEPLOYED),
            "params_train_m": Figure(train.params / 1e6, TRAINING),
            "flops_g": Figure(deployed.flops / 1e9, MACS),
            **self._predicted(self._operations[model], self.table),
        }
        after = after_network(self.table, network, side)
        if after is not None:
            source = f"predicted by table {self.table.name}, with what follows the network"
            figures["e2e_ms"] = Figure(figures["predicted_ms"].value + after, source)
        if self.settings.measure:
            built = build_model(network if isinstance(network, Backbone | DetectorSpec) else model)
            figures["measured_ms"] = self._measured(built, side)
        return figures if scored is None else figures | self._score(scored, side)

    def _score(self, spec: Spec, side: int) -> dict[str, Figure]:
        """The training-free score of a spec, where the scorer can judge it."""
        if self.settings.scorer is None:
            return {}
        name, options = named(self.settings.scorer, "scorer")
        try:
            given: dict[str, Any] = {"image_size": side, **options}
            value = score_spec(spec, name, **given)
        except UserError as error:
            problem = f"No {name} score: {error}."
            self.problems += [problem] if problem not in self.problems else []
            return {}
        of = "backbone" if isinstance(spec, Backbone) else "detector"
        blocks = {f"{type(block).__name__} {getattr(block, 'kind', '')}".strip() for block in backbone_of(spec).blocks}
        kinds = " and ".join(sorted(blocks))
        return {"score": Figure(value, f"training-free score {name} of the {of}, blocks {kinds}, {side} px")}

    def _exported(self, model: str) -> Entry:
        """A file that only runs: measured if asked, its parameters where the format tells them."""
        from nas.measure.trace import onnx_parameters

        runtime = load_runtime(model, threads=self.settings.threads)
        figures: dict[str, Figure] = {}
        if model.endswith(".onnx"):
            figures["params_m"] = Figure(onnx_parameters(model) / 1e6, "constants of the ONNX file")
        if self.settings.measure:
            figures["measured_ms"] = self._measured(runtime, runtime.image_size)
        return Entry(Path(model).name, "exported", runtime.image_size, figures)

    def _predicted(self, operations: Sequence[Operation], table: LatencyTable) -> dict[str, Figure]:
        latency = table.total(operations)
        percent, ms = latency.error_percent, latency.ms
        error = None if percent is None else ms * percent / 100
        batch = f", an image in a batch of {table.header.batch}" if table.header.batch > 1 else ""
        return {"predicted_ms": Figure(ms, f"predicted by table {table.name}{batch}", error)}

    def _measured(self, model: Any, side: int) -> Figure:
        from nas.inference.evaluator import time_model
        from nas.training.cores import computing_threads

        if callable(getattr(model, "fuse", None)):
            model.fuse()
        with computing_threads(self.settings.threads):
            milliseconds = time_model(model, side, self.settings.repeats, seconds=float("inf"))["median"]
        what = "ONNX Runtime or OpenVINO" if not hasattr(model, "parameters") else "torch"
        source = f"measured on this machine, {what}, {self.settings.threads} threads, median of {self.settings.repeats}"
        return Figure(milliseconds, source)


def with_published(entry: Entry, row: PublishedRow) -> Entry:
    """The entry with a published row's figures, and how far ours lie from them."""
    source = f"{row.source}: {row.protocol}"
    figures = dict(entry.figures) | {key: Figure(value, source) for key, value in row.figures.items()}
    for column, (ours, theirs) in DIFFERENCES.items():
        if ours in figures and theirs in figures:
            percent = 100 * (figures[ours].value / figures[theirs].value - 1)
            figures[column] = Figure(percent, f"{ours} against {theirs}")
    return replace(entry, figures=figures)


def weightless(model: str) -> nn.Module:
    """The module of a baseline's name, without memory for its weights."""
    import torch

    from nas.models.build import build_model

    with torch.device("meta"):
        return build_model(model)


def drawn_backbone(name: str) -> str | None:
    """The published backbone spec of a hand-drawn detector, where there is one."""
    from search_spaces.published import is_published

    match = re.match(r"(yolov9|yolo11)([a-z])", name)
    backbone = f"{match[1]}-{match[2]}-backbone" if match else ""
    return backbone if backbone and is_published(backbone) else None


def family_of(name: str) -> str:
    """The part of a name that its sizes share."""
    families = r"damo-yolo|yolov?\d+|yolo-nas|rtdetrv2|d-fine|deimv2|lw-detr|rf-detr|tinynas|deepmad|mae-det|gelan|c3k2"
    match = re.match(f"({families})", name.lower())
    return match[1] if match else "ours"


def checkpoint_figures(path: str) -> dict[str, Figure]:
    """AP that the training run wrote into its checkpoint."""
    from nas.models.checkpoint import read_header

    extra: Any = read_header(path)["extra"]
    numbers = extra.get("validation") or {}
    first = next(iter(numbers.values()), None)
    if not isinstance(first, int | float):
        return {}
    ap = 100 * first if 0 <= first <= 1 else float(first)
    return {"ap_own": Figure(ap, f"validation of our own run, in the checkpoint {Path(path).name}")}
