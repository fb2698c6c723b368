"""The public functions, each a few lines over the package that does the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.blocks.operation import FORMS, in_form
from nas.cost.count import Counts, count_operations, count_spec
from nas.cost.table_file import DEFAULT_TABLE
from nas.errors import UserError
from nas.lowering import Form, Operation, operations
from nas.spec import Backbone, DetectorSpec, Spec, image_side

if TYPE_CHECKING:
    from torch import nn

    from nas.commands.select_files import SelectionResult
    from nas.cost.latency import Latency
    from nas.data.dataset import DetectionData
    from nas.frame import Frame
    from nas.searchers.loop import Progress
    from nas.searchers.run import SearchResult
    from search_spaces import SearchSpace


def load(name: str | Path, use: Iterable[str] = ()) -> Spec:
    """The spec of a published name ("damo-yolo-s", "tinynas_l25_k1kx"), a spec file (best.yaml) or a line of one (front.jsonl:3).

    use: modules to import first, such as "my_package.blocks", whose blocks the file names. Raises UserError with the
    known names, or naming what is wrong with the file.
    """
    from nas import extensions
    from nas.files import is_spec_file, load_spec
    from nas.models.baselines import canonical_name
    from search_spaces.published import is_published, load_published

    extensions.use(use)
    if is_spec_file(name):
        return load_spec(name)
    if not is_published(str(name)) and (canonical_name(str(name)) or str(name).endswith(".safetensors")):
        raise UserError(
            f"{name} has no spec, only weights and layers: nas.Detector.load({str(name)!r}) or nas.build(...)"
        )
    return load_published(str(name))


def build(source: str | Path | Spec, num_classes: int | None = None, classes: Sequence[str] | None = None) -> nn.Module:
    """A torch detector from a published or baseline name, a spec, a spec file, or a checkpoint.

    eval mode: model(images (B, 3, H, W) RGB 0..255) -> scores (B, N, C), boxes (B, N, 4) corners in pixels.
    """
    from nas.models.build import build_model

    return build_model(source, num_classes, classes)


def count(source: str | Path | Spec | nn.Module, form: Form | None = None, image_size: int | None = None) -> Counts:
    """Parameters, MACs, activations, layers and rho of a spec, a name, a file, or any torch module.

    form: "train", "merged" (branches summed, as published) or "folded" (BN too). Unless told a spec is merged, a baseline
    or checkpoint folded, and a module counted as it stands. image_size: pixels, the network's own or 640 unless told.
    Raises UserError for another form, one that the module does not have, or an image size that it cannot have.
    """
    if form is not None and form not in FORMS:
        raise UserError(f"unknown form {form!r}; known: {', '.join(FORMS)}")
    network = _resolve(source)
    if isinstance(network, Backbone | DetectorSpec):
        return count_spec(network, form or "merged", image_size)
    if form is None and not isinstance(source, str | Path):
        return count_operations(_traced(network, image_size, fuse=False))
    if form in (None, "folded") and not hasattr(network, "fuse"):
        return count_operations(in_form(_traced(network, image_size, fuse=False), "folded"))
    from nas.measure.trace import count_module

    return count_module(network, form or "folded", image_size)


def latency(
    source: str | Path | Spec | nn.Module, hardware: str | Path = DEFAULT_TABLE, image_size: int | None = None
) -> Latency:
    """Predicted latency of the deployed form: `.ms` of an image, `float(...)`, and `.explain()` operation by operation.

    hardware: the name of a shipped table or the path of one; a table of larger batches gives an image's share of them.
    NMS is not included in `.ms`; `.e2e_ms` is with what follows the network until boxes, where the table tells it.
    """
    from nas.cost.latency import LatencyTable, after_network

    table, network = LatencyTable.load(hardware), _resolve(source)
    found = table.total(deployed_operations(network, image_size))
    return replace(found, after_ms=after_network(table, network, image_size))


def score(
    source: str | Path | Spec | nn.Module,
    scorer: str | Callable[..., float] = "mae",
    image_size: int | None = None,
    **options: object,
) -> float:
    """The training-free score of a spec (`level_weights=(0, 0, 1, 1, 16)` for "mae"; others in `nas.scorers`).

    scorer: a name, or a function of one's own: of a spec, or of a module if its first parameter is annotated as one or
    called `module` or `model`; it may name `images` (16 of Gaussian noise), and `image_size` in pixels.
    """
    from nas.scorers import find_scorer, score_spec

    network = _resolve(source)
    if isinstance(network, Backbone | DetectorSpec):
        return score_spec(network, scorer, image_size, **options)
    chosen = find_scorer(scorer)
    if chosen.needs == "spec":
        raise UserError(f"scorer {chosen.name} takes a spec, not a torch module")
    from nas.scorers.measuring import score_module

    side = image_side(network, image_size)
    chosen.check_options(options)
    return score_module(chosen, network, side, options)


def find(
    budget: Mapping[str, object],
    space: str | SearchSpace[Spec] | type[SearchSpace[Spec]] = "tinynas_k1kx",
    *,
    neck: str | Mapping[str, object] | None = None,
    image_size: int | None = None,
    progress: bool | Callable[[Progress], None] = False,
    state: str | Path | None = None,
    **options: object,
) -> SearchResult:
    """The best architecture within a budget, as `python -m nas.search` finds it: `.best.spec`, `.best.metrics`, `.front`.

    budget: limits, such as {"latency_ms": 3, "params_m": (2, 5)}; neck: a name of conf/neck or its fields; image_size:
    side in pixels; progress: a line on the terminal, or a function that is told; state: a file that the search goes on
    from, with more evaluations too; options: the fields of SearchSettings, such as scorer=my_function or
    start=["best.yaml"]. Space, scorer and searcher may be one's own.
    """
    from nas.searchers.run import run_search
    from nas.searchers.settings import SearchSettings

    if neck is not None or image_size is not None:
        options["frame"] = _frame(neck, image_size, options.get("frame"))
    settings = SearchSettings.of(budget=budget, space=space, **options)
    place = None if state is None else Path(state)
    if progress is not True:
        return run_search(settings, place, progress or None)
    from rich.console import Console

    from nas.commands.search_screen import Bar

    with Bar(Console(), settings.evaluations, True) as bar:
        return run_search(settings, place, bar.show)


def _frame(neck: str | Mapping[str, object] | None, image_size: int | None, frame: object) -> Frame:
    """The neck and head that a name of conf/neck or fields of it say, at an image size."""
    from nas.commands.search import SearchCommand
    from nas.config import compose_config
    from nas.frame import Frame

    if frame is not None:
        raise UserError("frame= holds the neck and the image size: give it alone, or neck= and image_size=")
    command = compose_config("search", SearchCommand, {} if neck is None else {"neck": neck})
    return Frame.of(command.neck, command.image_size if image_size is None else image_size)


def find_trained(
    budget: Mapping[str, object], data: str, folder: str | Path | None = None, **options: object
) -> SelectionResult:
    """The best detector for a budget and one's own data, the finalists trained; as `python -m nas.select` does.

    budget: limits by metric; data: a name of conf/data or a path; folder: where the run is left (default: outputs/select/DATE).
    options: settings of that command, nested by group (trainer={"batch_size": 8}), or a group's file by name.
    """
    from nas.commands.select import SelectCommand
    from nas.commands.select_screen import select_in
    from nas.config import compose_config
    from nas.cost.budget import Limited

    limits: dict[str, object] = {}
    for number, (text, limit) in enumerate(budget.items()):
        cost = Limited.of(text)
        entry = {cost.metric: limit, "part": cost.part, "hardware": cost.hardware}
        limits |= {f"+budget.limit{number}.{key}": value for key, value in entry.items() if value}
    command = compose_config("select", SelectCommand, {"data": data, **limits, **options})
    return select_in(command, Path(folder or Path("outputs/select") / time.strftime("%Y-%m-%d_%H-%M-%S")))


def profiled(hardware: str, **options: object) -> Path:
    """The latency table of this device, measured as `python -m nas.profile hardware=...` does; `latency` takes its path.

    options: the settings of that command (mode="quick", image_size, threads ...).
    """
    from nas.config import compose_config
    from nas.measure.profiler import ProfileSettings, measure_table

    return measure_table(compose_config("profile", ProfileSettings, {"hardware": hardware, **options}))


def read_data(data: str | Path, **options: object) -> dict[str, DetectionData]:
    """The splits of a data set, checked as `python -m nas.data` does; options: its settings, such as mode="repair".

    data: a name of conf/data, or the path of a folder, data.yaml, COCO JSON or zip.
    """
    from nas.config import compose_config
    from nas.data.actions import DataCommand
    from nas.data.sources import load_splits

    given = {"data": str(data)} | {f"data.{name}": value for name, value in options.items()}
    return load_splits(compose_config("data", DataCommand, given).data)[0]


def deployed_operations(source: str | Path | Spec | nn.Module, image_size: int | None = None) -> tuple[Operation, ...]:
    """What an inference engine runs for a spec, a name, a file or a module."""
    spec = _resolve(source)
    if isinstance(spec, Backbone | DetectorSpec):
        return operations(spec, "folded", image_size)
    return _traced(spec, image_size, fuse=True)


def _resolve(source: Any) -> Any:
    """Specs and modules as they are; names and files as specs, or as modules where only torch describes them."""
    if not isinstance(source, str | Path):
        return source
    from nas.files import is_spec_file
    from search_spaces.published import is_published

    if is_spec_file(source) or is_published(str(source)):
        return load(source)
    return build(source)


def _traced(module: Any, image_size: int | None, fuse: bool) -> tuple[Operation, ...]:
    from nas.measure.trace import trace_operations

    return trace_operations(module, image_side(module, image_size), fuse=fuse)
