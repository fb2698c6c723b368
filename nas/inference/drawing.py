"""Boxes, names and scores drawn on pictures and videos."""

from __future__ import annotations

import colorsys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import cv2
import numpy as np

from nas.data.images import Pixels
from nas.errors import UserError
from nas.inference.pictures import Picture

#: Endings that OpenCV writes; other pictures become JPEG.
WRITABLE = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

#: Pictures that may wait to be written.
AHEAD = 4


class Drawable(Protocol):
    """Detections of one picture, as a `Prediction` has them: corners (K, 4), scores, labels, class names, the picture."""

    @property
    def boxes(self) -> np.ndarray: ...

    @property
    def scores(self) -> np.ndarray: ...

    @property
    def labels(self) -> np.ndarray: ...

    @property
    def names(self) -> list[str]: ...

    @property
    def picture(self) -> Picture | None: ...


def class_colour(label: int) -> tuple[int, int, int]:
    """An RGB colour that neighbouring labels do not share."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1.0, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(pixels: Pixels, prediction: Drawable) -> Pixels:
    """A copy of a picture (H, W, 3) RGB with its detections; the best ones lie on top."""
    named = zip(prediction.names, prediction.scores, strict=True)
    return draw_boxes(pixels, prediction.boxes, prediction.labels, [f"{name} {score:.2f}" for name, score in named])


def draw_boxes(pixels: Pixels, boxes: np.ndarray, labels: np.ndarray, texts: Sequence[str]) -> Pixels:
    """A copy of a picture (H, W, 3) RGB with boxes (K, 4) in the colours of their labels (K,) and a text at each; the first
    ones lie on top."""
    canvas = np.ascontiguousarray(pixels).copy()
    size = max(canvas.shape[:2])
    line, font = max(1, round(size / 500)), max(0.35, size / 1600)
    for box, label, text in zip(boxes[::-1], labels[::-1], texts[::-1], strict=True):
        colour = class_colour(int(label))
        x1, y1, x2, y2 = (int(round(float(value))) for value in box)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, line, cv2.LINE_AA)
        (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, font, line)
        top = y1 - height - base if y1 >= height + base else y1
        cv2.rectangle(canvas, (x1, top), (x1 + width, top + height + base), colour, -1)
        dark = (0, 0, 0) if sum(colour) > 380 else (255, 255, 255)
        cv2.putText(canvas, text, (x1, top + height), cv2.FONT_HERSHEY_SIMPLEX, font, dark, line, cv2.LINE_AA)
    return canvas


class PictureWriter:
    """Writes drawn pictures below a folder under their own names, and the pictures of each video as one MP4.

    Drawing and encoding happen in a thread, in order, while the caller computes the next prediction.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._video: tuple[str, Any] | None = None
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> PictureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()  # what was handed over is still written, also after Ctrl-C
        self._close()
        if kind is None:
            self._settle(0)

    def write(self, prediction: Drawable) -> bool:
        """Hand over one prediction; False without a picture. Raises UserError if the disk refused an earlier one."""
        picture = prediction.picture
        if picture is None or picture.pixels is None:
            return False
        self._settle(AHEAD)
        self._waiting.append(self._thread.submit(self._write, prediction, picture, picture.pixels))
        return True

    def _settle(self, ahead: int) -> None:
        """Wait until at most so many pictures are still to be written."""
        while len(self._waiting) > ahead:
            self._waiting.popleft().result()

    def _write(self, prediction: Drawable, picture: Picture, pixels: Pixels) -> None:
        drawn = cv2.cvtColor(draw(pixels, prediction), cv2.COLOR_RGB2BGR)
        if picture.video:
            self._append(picture.video, picture.rate, drawn)
            return
        path = self.folder / picture.name
        if path.suffix.lower() not in WRITABLE:
            path = path.with_name(f"{path.name}.jpg")
        ok, data = cv2.imencode(path.suffix.lower(), drawn)
        try:
            if not ok:
                raise OSError(f"pictures of {drawn.shape[1]}x{drawn.shape[0]} do not fit the format")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.tobytes())
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from None

    def _append(self, video: str, rate: float, drawn: Any) -> None:
        path = self.folder / video
        if path.suffix.lower() != ".mp4":
            path = path.with_name(f"{path.name}.mp4")
        if self._video is None or self._video[0] != video:
            self._close()
            path.parent.mkdir(parents=True, exist_ok=True)
            height, width = drawn.shape[:2]
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, (width, height))
            if not writer.isOpened():
                raise UserError(f"cannot write {path}: this OpenCV has no MP4 encoder; set pictures=false")
            self._video = (video, writer)
        self._video[1].write(drawn)

    def _close(self) -> None:
        if self._video is not None:
            self._video[1].release()
            self._video = None
