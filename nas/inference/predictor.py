"""Pictures to boxes in their own pixels, with any network: a torch module, ONNX Runtime, OpenVINO, TensorRT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from nas.data.images import BACKGROUND, Pixels
from nas.inference import PredictOptions, Resize
from nas.inference.execution import told_when_full
from nas.inference.pictures import Picture, prefetch
from nas.inference.postprocess import Detections, postprocess


class Network(Protocol):
    """What predicts: images (B, 3, S, S), float RGB 0..255, to scores (B, N, C) and corners (B, N, 4) in input pixels.

    `end_to_end` networks return their final rows, which need no NMS.
    """

    classes: tuple[str, ...]
    image_size: int
    end_to_end: bool

    def __call__(self, images: Tensor) -> Any: ...


@dataclass(frozen=True)
class Prediction:
    """Detections of one picture, best first: corners (K, 4) in its own pixels, inside it; scores (K,); labels (K,).

    A picture that could not be read has an `error` and no detections. `picture` holds the pixels.
    """

    name: str
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    width: int = 0
    height: int = 0
    error: str = ""
    picture: Picture | None = field(default=None, repr=False, compare=False)

    @property
    def names(self) -> list[str]:
        """Class name of each detection."""
        return [self.classes[label] for label in self.labels]

    def __len__(self) -> int:
        return len(self.scores)


class Fit(NamedTuple):
    """Where a picture lies in the input: input = picture * (x_scale, y_scale) + (left, top)."""

    x_scale: float
    y_scale: float
    left: int = 0
    top: int = 0


class Predictor:
    """A network and its options; call it with pictures."""

    def __init__(self, network: Network, options: PredictOptions | None = None, image_size: int | None = None) -> None:
        self.network, self.options = network, options or PredictOptions()
        self.classes = tuple(network.classes)
        self.side = image_size or network.image_size
        self.device = "cpu"
        if isinstance(network, torch.nn.Module):
            self.device = next((str(p.device) for p in network.parameters()), "cpu")

    def __call__(self, pictures: Iterable[Picture]) -> Iterator[Prediction]:
        """Predictions in the order of the pictures, computed batch by batch."""
        ahead = prefetch(pictures, 2 * self.options.batch)
        while batch := list(islice(ahead, self.options.batch)):
            yield from self.predict_batch(batch)

    @told_when_full("batch, image_size or max_candidates")
    def predict_batch(self, pictures: Sequence[Picture]) -> list[Prediction]:
        """Predictions of a few pictures in one run of the network; the unreadable ones take no part."""
        readable = [picture.pixels for picture in pictures if picture.pixels is not None]
        found = iter(self._detect(readable) if readable else [])
        return [
            self._failed(picture) if picture.pixels is None else self._prediction(picture, *next(found))
            for picture in pictures
        ]

    def _detect(self, pictures: Sequence[Pixels]) -> list[tuple[Detections, Fit]]:
        images = np.empty((len(pictures), 3, self.side, self.side), np.float32)
        fits = [fit_into(picture, out, self.options.resize) for picture, out in zip(pictures, images, strict=True)]
        with torch.inference_mode():
            outputs = self.network(torch.from_numpy(images).to(self.device))
            scores, boxes = (torch.as_tensor(output) for output in outputs[:2])
            options = self.options
            detections = postprocess(
                scores.float(),
                boxes.float(),
                options.score_threshold,
                options.iou_threshold,
                options.max_detections,
                options.max_candidates,
                options.agnostic,
                nms=not getattr(self.network, "end_to_end", False),
            )
        return list(zip(detections, fits, strict=True))

    def _prediction(self, picture: Picture, found: Detections, fit: Fit) -> Prediction:
        assert picture.pixels is not None
        height, width = picture.pixels.shape[:2]
        boxes = found.boxes.numpy().astype(np.float32)
        boxes[:, 0::2] = ((boxes[:, 0::2] - fit.left) / fit.x_scale).clip(0, width)
        boxes[:, 1::2] = ((boxes[:, 1::2] - fit.top) / fit.y_scale).clip(0, height)
        labels = found.labels.numpy()
        return Prediction(
            picture.name, boxes, found.scores.numpy(), labels, self.classes, width, height, picture=picture
        )

    def _failed(self, picture: Picture) -> Prediction:
        empty = np.zeros(0, np.float32)
        return Prediction(
            picture.name,
            empty.reshape(0, 4),
            empty,
            empty.astype(np.int64),
            self.classes,
            error=picture.error,
            picture=picture,
        )


def fit_into(picture: Pixels, out: np.ndarray, resize: Resize) -> Fit:
    """Resize a picture (H, W, 3) bilinearly into an input (3, S, S) of floats 0..255, in place."""
    height, width = picture.shape[:2]
    side = out.shape[1]
    if resize == "stretch":
        x_scale, y_scale, size, left, top = side / width, side / height, (side, side), 0, 0
    else:
        scale = min(side / width, side / height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        x_scale, y_scale = size[0] / width, size[1] / height
        left, top = (side - size[0]) // 2, (side - size[1]) // 2
        out[:] = BACKGROUND
    resized = picture if size == (width, height) else cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    for channel, plane in enumerate(cv2.split(resized)):
        out[channel, top : top + size[1], left : left + size[0]] = plane
    return Fit(x_scale, y_scale, left, top)
