"""Random affine maps, and how pixels, boxes and polygons follow them.

Maps are 3 x 3 matrices on continuous coordinates: the pixel in column i covers [i, i + 1].
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray
Rectangle = tuple[float, float, float, float]


def translation(x: float, y: float) -> Matrix:
    """Moves by (x, y)."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def scaling(x: float, y: float) -> Matrix:
    """Stretches from the origin."""
    return np.diag([x, y, 1.0])


def random_affine(
    rng: np.random.Generator,
    canvas: float,
    size: float,
    rotation: float,
    scale: tuple[float, float],
    shear: float,
    shift: float,
) -> tuple[Matrix, float]:
    """Map from a square canvas to a size x size image, and its scale: M = T S R C.

    C moves the canvas centre to the origin, R rotates by +-rotation degrees and scales, S shears by +-shear degrees, T
    moves the origin to (0.5 +- shift) * size. The order of the draws is part of the seed's meaning.
    """
    angle = np.deg2rad(rng.uniform(-rotation, rotation))
    factor = float(rng.uniform(*scale))
    tan_x, tan_y = np.tan(np.deg2rad(rng.uniform(-shear, shear, 2)))
    to_x, to_y = rng.uniform(0.5 - shift, 0.5 + shift, 2) * size
    cos, sin = factor * np.cos(angle), factor * np.sin(angle)
    turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    slant = np.array([[1.0, tan_x, 0.0], [tan_y, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return translation(to_x, to_y) @ slant @ turn @ translation(-canvas / 2, -canvas / 2), factor


def map_points(matrix: Matrix, points: NDArray) -> NDArray:
    """Points (..., 2) through the map."""
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def corner_hull(matrix: Matrix, boxes: NDArray) -> NDArray:
    """The upright boxes (K, 4) around the mapped corners of boxes (K, 4)."""
    points = map_points(matrix, boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2))
    return np.concatenate([points.min(1), points.max(1)], 1)


def rectangle_hull(matrix: Matrix, rectangle: Rectangle) -> Rectangle:
    """The upright rectangle around one mapped rectangle; plain arithmetic, since an image needs several."""
    (a, b, c), (d, e, f) = matrix[:2].tolist()
    x1, y1, x2, y2 = rectangle
    low_x = min(a * x1, a * x2) + min(b * y1, b * y2) + c
    high_x = max(a * x1, a * x2) + max(b * y1, b * y2) + c
    low_y = min(d * x1, d * x2) + min(e * y1, e * y2) + f
    high_y = max(d * x1, d * x2) + max(e * y1, e * y2) + f
    return low_x, low_y, high_x, high_y


def inverse(matrix: Matrix) -> Matrix:
    """The map back."""
    return np.vstack([cv2.invertAffineTransform(matrix[:2]), (0.0, 0.0, 1.0)])


def reachable(matrix: Matrix, window: Rectangle, size: int) -> tuple[int, int, int, int] | None:
    """Pixels (left, top, right, bottom) of a size x size image that the window of the source touches, if any."""
    left, top, right, bottom = rectangle_hull(matrix, window)
    x1, y1 = max(math.floor(left), 0), max(math.floor(top), 0)
    x2, y2 = min(math.ceil(right), size), min(math.ceil(bottom), size)
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def paste(canvas: NDArray, image: NDArray, matrix: Matrix, window: Rectangle) -> None:
    """Draw `window` of an RGB or RGBA image (in its pixels) into the square RGBA canvas through the map, bilinear.

    Only the canvas pixels that the window reaches are visited, so that four mosaic tiles cost about one image.
    """
    height, width = image.shape[:2]
    left, top = max(round(window[0]), 0), max(round(window[1]), 0)
    right, bottom = min(round(window[2]), width), min(round(window[3]), height)
    if right <= left or bottom <= top:
        return
    target = reachable(matrix, (left, top, right, bottom), canvas.shape[0])
    if target is None:
        return
    x1, y1, x2, y2 = target
    seen = rectangle_hull(inverse(matrix), target)
    left, top = max(left, int(seen[0]) - 2), max(top, int(seen[1]) - 2)
    right, bottom = min(right, int(seen[2]) + 3), min(bottom, int(seen[3]) + 3)
    if right <= left or bottom <= top:
        return
    # pixel indices are half a pixel off continuous coordinates, on both sides
    index = translation(-0.5 - x1, -0.5 - y1) @ matrix @ translation(left + 0.5, top + 0.5)
    crop = image[top:bottom, left:right]
    cv2.warpAffine(
        crop if crop.shape[2] == 4 else cv2.cvtColor(crop, cv2.COLOR_RGB2RGBA),
        index[:2],
        (x2 - x1, y2 - y1),
        dst=canvas[y1:y2, x1:x2],
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_TRANSPARENT,
    )


def clip_boxes(boxes: NDArray, window: Rectangle) -> NDArray:
    """Boxes cut to a rectangle; those outside become empty."""
    low, high = np.array(window[:2] * 2), np.array(window[2:] * 2)
    return np.clip(boxes, low, high)


def clip_segments(segments: NDArray, owner: NDArray, window: Rectangle) -> tuple[NDArray, NDArray]:
    """Segments (T, 2, 2) cut to a rectangle (Liang and Barsky), those outside dropped, with their owners (T,)."""
    low, high = np.array(window[:2]), np.array(window[2:])
    if ((segments >= low) & (segments <= high)).all():
        return segments, owner
    start, step = segments[:, 0], segments[:, 1] - segments[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (low - start) / step, (high - start) / step
    still = step == 0
    inside = (start >= low) & (start <= high)
    enter = np.where(still, np.where(inside, -np.inf, np.inf), np.minimum(a, b)).max(1).clip(min=0)
    leave = np.where(still, np.where(inside, np.inf, -np.inf), np.maximum(a, b)).min(1).clip(max=1)
    keep = enter <= leave
    start, step = start[keep], step[keep]
    ends = np.stack([start + enter[keep, None] * step, start + leave[keep, None] * step], 1)
    return ends, owner[keep]


def segment_hull(segments: NDArray, owner: NDArray, count: int) -> NDArray:
    """Boxes (count, 4) around the segments of each owner; zeros for an owner without any."""
    hull = np.zeros((count, 4))
    hull[:, :2], hull[:, 2:] = np.inf, -np.inf
    np.minimum.at(hull[:, :2], owner, segments.min(1))
    np.maximum.at(hull[:, 2:], owner, segments.max(1))
    hull[~np.isfinite(hull).all(1)] = 0
    return hull
