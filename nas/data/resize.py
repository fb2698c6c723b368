"""How a picture becomes a network's square input, and how boxes go there and back: the one definition for training,
validation, evaluation, prediction and export."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from nas.options import Resize

Pixels = NDArray[np.uint8]
#: The grey that stands beside a picture, and shows through transparent pixels.
BACKGROUND = 114


class Fit(NamedTuple):
    """Where a picture of width x height lies in an input: in inner_width x inner_height pixels from (left, top) on."""

    width: int
    height: int
    inner_width: int
    inner_height: int
    left: int = 0
    top: int = 0

    @classmethod
    def of(cls, width: int, height: int, side: int, resize: Resize = "stretch") -> Fit:
        """`stretch` fills the square; `letterbox` keeps the aspect to half a pixel and puts the picture in the middle."""
        if resize == "stretch":
            return cls(width, height, side, side)
        scale = min(side / width, side / height)
        inner = max(1, round(width * scale)), max(1, round(height * scale))
        return cls(width, height, *inner, (side - inner[0]) // 2, (side - inner[1]) // 2)

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


def shrunk(picture: Pixels, fit: Fit) -> Pixels:
    """A picture at the size that it has in the input, bilinearly."""
    size = fit.inner_width, fit.inner_height
    return picture if picture.shape[1::-1] == size else cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def fitted(picture: Pixels, fit: Fit, side: int) -> Pixels:
    """A picture, whole or shrunk already, as an input (side, side, 3); what it leaves free is grey 114."""
    inner = shrunk(picture, fit)
    if inner.shape[:2] == (side, side):
        return inner
    image = np.full((side, side, 3), BACKGROUND, np.uint8)
    image[fit.top : fit.top + fit.inner_height, fit.left : fit.left + fit.inner_width] = inner
    return image
