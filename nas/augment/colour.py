"""Colour jitter in HSV by look-up tables, on 8-bit pixels throughout."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def jitter_colour(image: NDArray, rng: np.random.Generator, hue: float, saturation: float, value: float) -> NDArray:
    """RGB (H, W, 3) with hue turned and saturation and value scaled by factors uniform in 1 +- the given shares."""
    factors = 1 + rng.uniform(-1, 1, 3) * (hue, saturation, value)
    levels = np.arange(256)
    turned = (levels * factors[0]) % 180
    rows = [turned, np.clip(levels * factors[1], 0, 255), np.clip(levels * factors[2], 0, 255)]
    table = np.stack(rows, -1).astype(np.uint8)[None]
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    return cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2RGB)
