"""Scores of the averaged weights during a training, with pictures of predictions beside the annotations."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from nas.data.dataset import DetectionData
from nas.data.images import decode
from nas.data.loader import Loader, build_loader
from nas.inference.drawing import draw_boxes
from nas.inference.evaluator import detect
from nas.inference.scoring import Found, score_detections
from nas.models.base import DetectorModule
from nas.training.ema import NormStatistics
from nas.training.hooks import Validation

PICTURES = 4


class Validator:
    """Calling it with a detector gives its COCO scores on `data`, stretched to `image_size` as in the evaluation.

    BatchNorm statistics are measured first where `statistics` is given. A fused copy predicts, in the training's
    precision. The first pictures come along with boxes scored above `shown`.
    """

    def __init__(
        self,
        data: DetectionData,
        image_size: int,
        batch_size: int,
        fabric: Fabric,
        statistics: NormStatistics | None = None,
        shown: float = 0.3,
    ) -> None:
        self.data, self.fabric, self.statistics, self.shown = data, fabric, statistics, shown
        self.loader: Loader | None = None
        if fabric.is_global_zero:  # the others never score: their copies of the pictures would only fill the memory
            self.loader = build_loader(data, min(batch_size, len(data)), image_size, train=False, cache="auto")

    def __call__(self, detector: DetectorModule) -> Validation:
        assert self.loader is not None, "only the first process validates"
        if self.statistics is not None:
            detector = self.statistics(detector, self.fabric.autocast())
        found, _ = detect(_Deployed(detector, self.fabric), self.loader)
        every = [found[i] for i in range(len(self.data))]
        result = score_detections(self.data, every)
        numbers = dict(result.numbers) | {f"ap/{name}": one.ap for name, one in result.per_class.items()}
        pictures = {f"val/{i}": self._picture(i, every[i]) for i in range(min(PICTURES, len(every)))}
        return Validation(numbers, pictures, result.curves, detector)

    def _picture(self, index: int, found: Found) -> NDArray[np.uint8]:
        record = self.data.records[index]
        sure = found.scores > self.shown
        predicted = found.boxes[sure], found.labels[sure]
        return side_by_side(decode(record), (record.boxes, record.labels), predicted, self.data.classes)


class _Deployed:
    """A fused copy of a detector that runs on the training's device, in its precision and memory format."""

    def __init__(self, detector: DetectorModule, fabric: Fabric) -> None:
        self.classes, self.end_to_end = detector.classes, getattr(detector, "end_to_end", False)
        self._model, self._fabric = copy.deepcopy(detector).fuse(), fabric

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with self._fabric.autocast():
            scores, boxes = self._model(images.to(self._fabric.device))
        return scores, boxes


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
