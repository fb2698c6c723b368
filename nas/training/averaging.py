"""The averaged weights: what is evaluated, exported and kept as the result; BatchNorm statistics of its own, and its scores."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.data.dataset import DetectionData
from nas.data.images import decode
from nas.data.loader import Batch, Loader, build_loader
from nas.inference.drawing import draw_boxes
from nas.inference.evaluator import detect
from nas.inference.scoring import Found, score_detections
from nas.loss.assignment import pad_targets
from nas.loss.validation import ValidationLoss
from nas.models.base import DetectorModule, RawPrediction
from nas.options import Resize, in_squares

Model = TypeVar("Model", bound=nn.Module)

#: A trained module, and entry by entry the floats of the average and of the module, then the integers of both.
_Pairs = tuple[nn.Module, list[Tensor], list[Tensor], list[Tensor], list[Tensor]]


def ema_momentum(update: int, decay: float = 0.9998, ramp: float = 2000.0) -> float:
    """Weight of the old average at an update (the first is 0): decay * (1 - exp(-update / ramp))."""
    return decay * (1 - math.exp(-update / ramp))


class Ema(Generic[Model]):
    """The average of every floating entry of a state, BatchNorm statistics included; integers are copied.

    `model` is a copy of the trained model that holds the average and is ready to evaluate.
    """

    def __init__(self, model: Model, decay: float = 0.9998, ramp: float = 2000.0) -> None:
        self.model = model.eval().requires_grad_(False)
        self.decay, self.ramp, self.updates = decay, ramp, 0
        self._pairs: _Pairs | None = None

    @torch.no_grad()
    def update(self, source: nn.Module) -> None:
        """Move towards `source`'s state; the very first update copies it."""
        if self._pairs is None or self._pairs[0] is not source:
            self._pairs = self._pair(source)
        _, averages, currents, counts, current_counts = self._pairs
        currents = [current.to(own.dtype) for own, current in zip(averages, currents, strict=True)]
        torch._foreach_lerp_(averages, currents, 1 - ema_momentum(self.updates, self.decay, self.ramp))
        if counts:
            torch._foreach_copy_(counts, current_counts)
        self.updates += 1

    def _pair(self, source: nn.Module) -> _Pairs:
        """Own entries beside those of `source`, looked up once: training changes them in place."""
        state = source.state_dict()
        pairs = [(own, state[name].detach()) for name, own in self.model.state_dict().items()]
        floats = [pair for pair in pairs if pair[0].dtype.is_floating_point]
        integers = [pair for pair in pairs if not pair[0].dtype.is_floating_point]
        lists = [[pair[side] for pair in kind] for kind in (floats, integers) for side in (0, 1)]
        return source, lists[0], lists[1], lists[2], lists[3]


class NormStatistics:
    """Calling it with a detector gives a copy whose BatchNorms hold the statistics of `images` training pictures.

    The pictures are spread evenly over the data, resized without augmentation; `context` is the precision to run in.
    Short trainings with large steps move the layers faster than running averages follow (most of all the first one,
    whose inputs of 0..255 have a large mean): scores then collapse although the losses fall. Precise statistics: arXiv
    2105.07576, section 3.
    """

    def __init__(
        self, data: DetectionData, image_size: int, batch_size: int, images: int, resize: Resize = "stretch"
    ) -> None:
        chosen = np.linspace(0, len(data) - 1, min(images, len(data))).round().astype(int)
        self._loader = build_loader(
            data.subset(int(i) for i in chosen),
            min(batch_size, len(chosen)),
            image_size,
            train=False,
            cache="auto",
            resize=in_squares(resize),  # as the training sees them
        )

    @torch.no_grad()
    def __call__(self, detector: Model, context: AbstractContextManager | None = None) -> Model:
        measured = copy.deepcopy(detector).eval()
        device = next(measured.parameters()).device
        norms = [module for module in measured.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        for batch in self._loader:
            images = batch.images.to(device).float()
            with context or nullcontext():
                measured(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        return measured.eval()


PICTURES = 4


@dataclass(frozen=True)
class Validation:
    """Scores by name, `ap` first and losses last; pictures (H, W, 3) and curves (recall, precision) of each class by name.

    detector: what was scored, if it is not the very average (None for hooks).
    """

    numbers: Mapping[str, float]
    images: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    curves: Mapping[str, tuple[NDArray, NDArray]] = field(default_factory=dict)
    detector: DetectorModule | None = None


class Validator:
    """Calling it with a detector gives its COCO scores on `data`, resized to `image_size` as in the evaluation.

    BatchNorm statistics are measured first where `statistics` is given. A fused copy predicts, in the training's
    precision. The first pictures come along with boxes scored above `shown`. loss: makes what measures the loss, too, by
    one pass through the network; the scores are the same bytes with and without it.
    """

    def __init__(
        self,
        data: DetectionData,
        image_size: int,
        batch_size: int,
        fabric: Fabric,
        statistics: NormStatistics | None = None,
        shown: float = 0.3,
        resize: Resize = "stretch",
        loss: Callable[[], ValidationLoss] | None = None,
    ) -> None:
        self.data, self.fabric, self.statistics, self.shown, self.loss = data, fabric, statistics, shown, loss
        self.loader: Loader | None = None
        if fabric.is_global_zero:  # the others never score: their copies of the pictures would only fill the memory
            batch = min(batch_size, len(data))
            self.loader = build_loader(data, batch, image_size, train=False, cache="auto", resize=resize)

    def __call__(self, detector: DetectorModule) -> Validation:
        assert self.loader is not None, "only the first process validates"
        if self.statistics is not None:
            detector = self.statistics(detector, self.fabric.autocast())
        deployed = _Deployed(detector, self.fabric, self.loss() if self.loss is not None else None)
        found, _ = detect(deployed, self.loader, seen=deployed.compare)
        every = [found[i] for i in range(len(self.data))]
        result = score_detections(self.data, every)
        numbers = dict(result.numbers) | {f"ap/{name}": one.ap for name, one in result.per_class.items()}
        if deployed.loss is not None:
            numbers |= deployed.loss.numbers()
        pictures = {f"val/{i}": self._picture(i, every[i]) for i in range(min(PICTURES, len(every)))}
        return Validation(numbers, pictures, result.curves, detector)

    def _picture(self, index: int, found: Found) -> NDArray[np.uint8]:
        record = self.data.records[index]
        sure = found.scores > self.shown
        predicted = found.boxes[sure], found.labels[sure]
        return side_by_side(decode(record), (record.boxes, record.labels), predicted, self.data.classes)


class _Deployed:
    """A fused copy of a detector that runs on the training's device, in its precision and memory format.

    loss: is told what the network gave and what was annotated, by `compare` after each batch.
    """

    def __init__(self, detector: DetectorModule, fabric: Fabric, loss: ValidationLoss | None = None) -> None:
        self.classes, self.end_to_end = detector.classes, getattr(detector, "end_to_end", False)
        self._model, self._fabric, self.loss = copy.deepcopy(detector).fuse(), fabric, loss
        self._raw: RawPrediction | None = None

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images.to(self._fabric.device)
        with self._fabric.autocast():
            if self.loss is None:
                scores, boxes = self._model(pixels)
            else:
                (scores, boxes), self._raw = self._model.predict_both(pixels)
        return scores, boxes

    def compare(self, batch: Batch) -> None:
        """Add the batch that was just predicted to the loss, if there is one."""
        if self.loss is not None and self._raw is not None:
            self.loss.add(self._raw, pad_targets(batch.boxes, batch.labels).to(self._fabric.device))
            self._raw = None


def side_by_side(
    image: NDArray[np.uint8],
    truth: tuple[NDArray, NDArray],
    found: tuple[NDArray, NDArray],
    classes: Sequence[str],
) -> NDArray[np.uint8]:
    """One image twice: annotated boxes on the left, predicted ones on the right; each (boxes (K, 4), labels (K,))."""
    panels = [
        draw_boxes(image, boxes, labels, [classes[int(label)] for label in labels]) for boxes, labels in (truth, found)
    ]
    return np.concatenate(panels, axis=1)
