"""One evaluation written to a folder: scores, detections and pictures of whatever file was given."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from nas.data.sources import DataConfig
from nas.files import write_atomic, write_json
from nas.options import Count, CountOrNone, ImageSize, Name, OneOf, Share, Workers, check_object

if TYPE_CHECKING:
    from nas.inference.scoring import Evaluation


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand:
    """What `python -m nas.evaluate` is told.

    model: checkpoint, exported file (.onnx, .xml, .engine), name or spec; split: train, val or test of the data."""

    model: Name
    data: DataConfig = field(default_factory=DataConfig)
    split: Annotated[str, OneOf("train", "val", "test")] = "val"
    image_size: ImageSize | None = None
    batch_size: Count = 8
    workers: Workers = 0
    device: Name | None = None
    score_threshold: Share = 0.001
    iou_threshold: Share = 0.7
    max_detections: Count = 300
    max_candidates: Count = 3000
    time: bool = True
    plots: bool = True
    results: bool = True
    rows: CountOrNone = 20
    progress: bool = True

    def __post_init__(self) -> None:
        check_object(self)


def evaluate_into(config: EvaluateCommand, folder: Path) -> Evaluation:
    """Score config.model on a split and write scores.json, results.json and the pictures into `folder`.

    milliseconds: `model` and `postprocess` an image in the batches that were scored, and with config.time `batch1`, the
    median of the bare network on one image. UserError for an unusable model, split or class list, before any image.
    """
    from nas.data.loader import build_loader
    from nas.data.sources import load_splits
    from nas.detector import Detector
    from nas.inference.evaluator import class_lookup, detect, time_model
    from nas.inference.execution import resize_for
    from nas.inference.scoring import coco_results, score_detections

    detector = Detector.load(config.model)
    if config.progress and hasattr(detector.network, "origin"):
        print(detector.network.origin)
    size = detector.input_side(config.image_size)
    network = detector.deployed(config.device)
    splits, _ = load_splits(config.data, (config.split,))
    data = splits[config.split]
    class_lookup(network, data)
    resize = resize_for(network, config.data.resize)
    loader = build_loader(data, config.batch_size, size, workers=config.workers, train=False, resize=resize)
    with _progress(config.progress) as advance:
        found, times = detect(
            network,
            loader,
            config.score_threshold,
            config.iou_threshold,
            config.max_detections,
            config.max_candidates,
            progress=advance,
        )
    every = [found[i] for i in range(len(data))]
    result = score_detections(data, every, milliseconds=times)
    if config.time:
        result = replace(result, milliseconds={**times, "batch1": time_model(network, size)["median"]})
    scores = {"model": str(config.model), "data": data.name, "split": data.split, "image_size": size}
    write_json(folder / "scores.json", scores | result.to_dict())
    if config.results:
        write_atomic(folder / "results.json", json.dumps(coco_results(data, every)))
    if config.plots:
        from nas.report.evaluation_plots import save_evaluation

        save_evaluation(folder, result)
    return result


def _progress(active: bool) -> AbstractContextManager[Callable[[int, int], None] | None]:
    if not active:
        return nullcontext()
    return _Bar()


class _Bar:
    """A rich progress bar over batches, only on a terminal."""

    def __enter__(self) -> Callable[[int, int], None]:
        from rich.console import Console
        from rich.progress import Progress

        console = Console()
        self._bar = Progress(console=console, disable=not console.is_terminal, transient=True)
        self._task = self._bar.add_task("evaluating", total=None)
        self._bar.start()
        return lambda done, total: self._bar.update(self._task, completed=done, total=total)

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()
