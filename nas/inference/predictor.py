"""Pictures to boxes in their own pixels, with any network: a torch module, ONNX Runtime, OpenVINO, TensorRT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from nas.data.images import Pixels
from nas.data.resize import Fit, fits_of, fitted
from nas.errors import UserError
from nas.files import write_atomic
from nas.inference import PredictOptions
from nas.inference.drawing import draw
from nas.inference.execution import Outputs, inference, now, resize_for, told_when_full
from nas.inference.pictures import Picture, prefetch
from nas.inference.postprocess import Detections, postprocess
from nas.options import Resize
from nas.report.canvas import Shown, canvas, picture_html

if TYPE_CHECKING:
    import supervision
    from matplotlib.figure import Figure


class Network(Protocol):
    """What predicts: images (B, 3, H, W), float RGB 0..255, to scores (B, N, C) and corners (B, N, 4) in input pixels.

    `end_to_end` networks return their final rows, which need no NMS; `resize` is how pictures become their inputs (where
    they have none: stretched).
    """

    classes: tuple[str, ...]
    image_size: int
    end_to_end: bool
    resize: Resize

    def __call__(self, images: Tensor) -> Outputs: ...


@dataclass(frozen=True)
class Prediction(Shown):
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

    def __repr__(self) -> str:
        found = ", ".join(f"{number} {name}" for name, number in Counter(self.names).most_common(12)) or "nothing"
        return f"Prediction({self.name}, {self.width} x {self.height}: {self.error or found})"

    def to_dict(self) -> dict[str, object]:
        found = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), self.names, strict=True)
        rows = [{"box": box, "score": score, "label": label, "name": name} for box, score, label, name in found]
        known = {"name": self.name, "width": self.width, "height": self.height, "error": self.error}
        return {**known, "detections": rows}

    @property
    def drawn(self) -> Pixels:
        """The picture (H, W, 3) RGB with its detections; raises UserError if its pixels are not at hand."""
        if self.picture is None or self.picture.pixels is None:
            raise UserError(f"{self.name}: there are no pixels to draw on{f' ({self.error})' * bool(self.error)}")
        return draw(self.picture.pixels, self)

    def plot(self) -> Figure:
        pixels = self.drawn
        width = 8.0
        figure, ((axes,),) = canvas(1, 1, width, width * pixels.shape[0] / pixels.shape[1])
        axes.imshow(pixels)
        axes.set_axis_off()
        return figure

    def save(self, path: str | Path) -> Path:
        """The data as .json, else the picture with its detections, in its own pixels."""
        if Path(path).suffix.lower() == ".json":
            return super().save(path)
        try:
            done, encoded = cv2.imencode(Path(path).suffix, self.drawn[..., ::-1])
        except cv2.error:
            done = False
        if not done:
            raise UserError(f"{path}: give a name that ends in .json, .jpg or .png")
        return write_atomic(path, encoded.tobytes())

    def _repr_html_(self) -> str:
        if self.picture is None or self.picture.pixels is None:
            return super()._repr_html_()
        pixels = self.drawn
        shrink = min(1.0, 800 / max(pixels.shape[:2]))
        small = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        return picture_html(repr(self), cv2.imencode(".png", small[..., ::-1])[1].tobytes())

    def to_supervision(self) -> supervision.Detections:
        """As `supervision.Detections`, class names in `data["class_name"]`; raises UserError without that package."""
        try:
            import supervision
        except ImportError:
            raise UserError("to_supervision needs the package supervision: pip install supervision") from None
        named = {"class_name": np.array(self.names)}
        return supervision.Detections(self.boxes.copy(), None, self.scores.copy(), self.labels.astype(int), data=named)

    @classmethod
    def from_supervision(
        cls, detections: supervision.Detections, classes: Sequence[str], name: str = "", picture: Pixels | None = None
    ) -> Prediction:
        """Detections of supervision (or anything with its xyxy, confidence and class_id) as a prediction, best first."""
        count = len(detections.xyxy)
        scores = np.ones(count) if detections.confidence is None else np.asarray(detections.confidence, float)
        labels = np.zeros(count, np.int64) if detections.class_id is None else np.asarray(detections.class_id, np.int64)
        if count and not 0 <= labels.min() <= labels.max() < len(classes):
            raise UserError(f"class_id {labels.max()} has no name among {len(classes)} classes")
        order = np.argsort(-scores, kind="stable")
        height, width = (0, 0) if picture is None else picture.shape[:2]
        shown = None if picture is None else Picture(name, picture)
        boxes = np.asarray(detections.xyxy, np.float32).reshape(-1, 4)[order]
        return cls(
            name, boxes, scores[order].astype(np.float32), labels[order], tuple(classes), width, height, "", shown
        )


class Predictor:
    """A network and its options; call it with pictures."""

    def __init__(self, network: Network, options: PredictOptions | None = None, image_size: int | None = None) -> None:
        self.network, self.options = network, options or PredictOptions()
        self.classes = tuple(network.classes)
        self.side = image_size or network.image_size
        self.resize = resize_for(network, self.options.resize)
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

    def inputs(self, pictures: Sequence[Pixels]) -> tuple[Tensor, list[Fit]]:
        """What the network is given for pictures, on its device, and where each lies in it."""
        images, fits = network_inputs(pictures, self.side, self.resize)
        return torch.from_numpy(images).to(self.device), fits

    def detections(self, outputs: Outputs) -> list[Detections]:
        """What follows the network: its outputs as detections in the input's pixels, on the CPU."""
        scores, boxes = (torch.as_tensor(output) for output in outputs[:2])
        options = self.options
        return postprocess(
            scores.float(),
            boxes.float(),
            options.score_threshold,
            options.iou_threshold,
            options.max_detections,
            options.max_candidates,
            options.agnostic,
            nms=not getattr(self.network, "end_to_end", False),
        )

    def time_frames(self, pictures: Iterable[Picture], warm_up: int = 0) -> dict[str, list[float]]:
        """Milliseconds of each readable picture after some to warm up, one at a time, from its pixels in memory to boxes:
        `preprocess`, `network`, `postprocess`, and `frame`, which is all three."""
        times: dict[str, list[float]] = {name: [] for name in ("preprocess", "network", "postprocess", "frame")}
        readable = (picture.pixels for picture in pictures if picture.pixels is not None)
        with inference(self.network) as device:
            for number, pixels in enumerate(readable):
                marks = [now(device)]
                images, _ = self.inputs([pixels])
                marks.append(now(device))
                outputs = self.network(images)
                marks.append(now(device))
                self.detections(outputs)
                marks.append(now(device))
                spent = [1000 * (end - start) for start, end in zip(marks, marks[1:], strict=False)]
                for values, value in zip(times.values(), [*spent, sum(spent)], strict=True):
                    values += [value] * (number >= warm_up)
        return times

    def _detect(self, pictures: Sequence[Pixels]) -> list[tuple[Detections, Fit]]:
        images, fits = self.inputs(pictures)
        with torch.inference_mode():
            detections = self.detections(self.network(images))
        return list(zip(detections, fits, strict=True))

    def _prediction(self, picture: Picture, found: Detections, fit: Fit) -> Prediction:
        assert picture.pixels is not None
        height, width = picture.pixels.shape[:2]
        boxes = fit.to_picture(found.boxes.numpy()).astype(np.float32)
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


def network_inputs(pictures: Sequence[Pixels], side: int, resize: Resize) -> tuple[np.ndarray, list[Fit]]:
    """Pictures (H, W, 3), resized bilinearly, as one batch (B, 3, H', W') of floats 0..255, and where each lies in it."""
    fits = fits_of([(picture.shape[1], picture.shape[0]) for picture in pictures], side, resize)
    images = np.empty((len(pictures), 3, fits[0].outer_height, fits[0].outer_width), np.float32)
    for picture, fit, image in zip(pictures, fits, images, strict=True):
        for plane, channel in zip(cv2.split(fitted(picture, fit)), image, strict=True):
            channel[:] = plane
    return images, fits
