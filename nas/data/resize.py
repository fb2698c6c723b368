"""How a picture becomes a network's input, and how boxes go there and back: the one definition for training, validation,
evaluation, prediction and export."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from nas.options import LARGEST_STRIDE, Resize

Pixels = NDArray[np.uint8]
#: The grey that stands beside a picture, and shows through transparent pixels.
BACKGROUND = 114
#: Pixels that the sides of a rectangle have to spare in an evaluation, half of the largest stride: YOLO's authors score 640
#: so at 672, and predict without it (github.com/ultralytics/ultralytics/issues/6192, ultralytics/yolov5/issues/6404).
MARGIN = LARGEST_STRIDE // 2


class Fit(NamedTuple):
    """Where a picture of width x height lies: in the middle inner_width x inner_height pixels of an input of outer_width x
    outer_height."""

    width: int
    height: int
    inner_width: int
    inner_height: int
    outer_width: int
    outer_height: int

    @classmethod
    def of(cls, width: int, height: int, side: int, resize: Resize = "stretch") -> Fit:
        """In a square. `stretch` fills it; the others keep the aspect to half a pixel and put the picture in the middle."""
        if resize == "stretch":
            return cls(width, height, side, side, side, side)
        scale = min(side / width, side / height)
        inner = max(1, round(width * scale)), max(1, round(height * scale))
        return cls(width, height, *inner, side, side)

    @property
    def left(self) -> int:
        return (self.outer_width - self.inner_width) // 2

    @property
    def top(self) -> int:
        return (self.outer_height - self.inner_height) // 2

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the input a pixel of the picture, in x and y."""
        return self.inner_width / self.width, self.inner_height / self.height

    def to_input(self, boxes: NDArray) -> NDArray:
        """Corners (K, 4) in the picture's pixels as corners in the input's, of the same type."""
        moved: NDArray = boxes * np.array(self.scale * 2, boxes.dtype)
        return moved + np.array((self.left, self.top) * 2, boxes.dtype) if self.left or self.top else moved

    def to_picture(self, boxes: NDArray) -> NDArray:
        """Corners (K, 4) in the input's pixels as float64 corners in the picture's, cut to its borders."""
        back = np.array([self.width / self.inner_width, self.height / self.inner_height] * 2)
        corners = (boxes - np.array((self.left, self.top) * 2, boxes.dtype)) * back
        return np.clip(corners, 0, [self.width, self.height, self.width, self.height])


def fits_of(sizes: Iterable[tuple[int, int]], side: int, resize: Resize, margin: int = 0) -> list[Fit]:
    """Where the pictures of a batch, each (width, height), lie in its inputs: squares, or with `rectangle` the smallest sides
    in multiples of 32 that hold every picture as large as in the square, and `margin` pixels more."""
    fits = [Fit.of(width, height, side, resize) for width, height in sizes]
    if resize != "rectangle":
        return fits
    needed = max(fit.inner_width for fit in fits), max(fit.inner_height for fit in fits)
    width, height = (-(-(pixels + margin) // LARGEST_STRIDE) * LARGEST_STRIDE for pixels in needed)
    return [fit._replace(outer_width=width, outer_height=height) for fit in fits]


def shrunk(picture: Pixels, fit: Fit) -> Pixels:
    """A picture at the size that it has in the input, bilinearly."""
    size = fit.inner_width, fit.inner_height
    return picture if picture.shape[1::-1] == size else cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def fitted(picture: Pixels, fit: Fit) -> Pixels:
    """A picture, whole or shrunk already, as an input (outer_height, outer_width, 3); what it leaves free is grey 114."""
    inner = shrunk(picture, fit)
    if inner.shape[:2] == (fit.outer_height, fit.outer_width):
        return inner
    image = np.full((fit.outer_height, fit.outer_width, 3), BACKGROUND, np.uint8)
    image[fit.top : fit.top + fit.inner_height, fit.left : fit.left + fit.inner_width] = inner
    return image
