"""Mosaic: four images, each resized to a square as for evaluation, around a random centre, drawn straight into the output
through one affine map each.

The canvas of two image sizes a side is never built: each tile's own scale and place are composed with the affine map,
which is the same picture within interpolation at a fraction of the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.augment.affine import (
    Matrix,
    Rectangle,
    clip_boxes,
    clip_segments,
    corner_hull,
    map_points,
    scaling,
    segment_hull,
    translation,
)
from nas.data.dataset import Record
from nas.data.resize import Fit
from nas.options import Resize


@dataclass(frozen=True, slots=True)
class Tile:
    """A record's place on the canvas: the map from its pixels, and the part of the canvas where it shows."""

    index: int
    to_canvas: Matrix
    visible: Rectangle


def mosaic_tiles(
    rng: np.random.Generator,
    indices: tuple[int, int, int, int],
    records: tuple[Record, ...],
    size: int,
    resize: Resize = "stretch",
) -> list[Tile]:
    """Top left, top right, bottom left, bottom right of a centre uniform in [0.5, 1.5] sizes, cut by the canvas."""
    x, y = rng.uniform(0.5 * size, 1.5 * size, 2)
    tiles = []
    for index, dx, dy in zip(indices, (-size, 0, -size, 0), (-size, -size, 0, 0), strict=True):
        tiles.append(_tile(index, records[index], x + dx, y + dy, size, resize, 2.0 * size))
    return tiles


def whole_tile(index: int, record: Record, size: int, resize: Resize = "stretch") -> Tile:
    """The record alone, on a canvas of one size."""
    return _tile(index, record, 0.0, 0.0, size, resize, float(size))


def _tile(index: int, record: Record, x: float, y: float, size: int, resize: Resize, canvas: float) -> Tile:
    """A record resized to a square whose corner is (x, y)."""
    fit = Fit.of(record.width, record.height, size, resize)
    left, top = x + fit.left, y + fit.top
    right, bottom = left + fit.inner_width, top + fit.inner_height
    visible = (max(left, 0.0), max(top, 0.0), min(right, canvas), min(bottom, canvas))
    return Tile(index, translation(left, top) @ scaling(*fit.scale), visible)


def moved_boxes(record: Record, tile: Tile, affine: Matrix, factor: float, size: int) -> tuple[NDArray, NDArray]:
    """Boxes (K, 4) in the output and which of the record's boxes (K,) are worth keeping.

    A box with polygons becomes the hull of what is left of its outline, one without the hull of its corners. Kept:
    sides above 2 pixels (at 640), more than 0.1 of the scaled original's area, aspect ratio below 20.
    """
    scale_x, scale_y, left, top = tile.to_canvas[[0, 1, 0, 1], [0, 1, 2, 2]]
    on_canvas = clip_boxes(record.boxes * ((scale_x, scale_y) * 2) + ((left, top) * 2), tile.visible)
    frame = (0.0, 0.0, float(size), float(size))
    boxes = clip_boxes(corner_hull(affine, on_canvas), frame)
    if record.polygons:
        _tighten(boxes, record, tile, affine, frame)
    before = (on_canvas[:, 2] - on_canvas[:, 0]) * (on_canvas[:, 3] - on_canvas[:, 1]) * factor**2
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    least = 2 * size / 640
    slim = np.maximum(width, height) < 20 * np.minimum(width, height)
    keep = (width > least) & (height > least) & (width * height > 0.1 * before) & (before > 0) & slim
    return boxes, keep


def _tighten(boxes: NDArray, record: Record, tile: Tile, affine: Matrix, frame: Rectangle) -> None:
    """Replace, in place, boxes (K, 4) that still show and have polygons by the hull of what shows of their outline."""
    showing = (boxes[:, 2:] > boxes[:, :2]).all(1)
    outlines = [(box, polygon) for box in np.flatnonzero(showing) for polygon in record.polygons[box]]
    if not outlines:
        return
    polygons = [polygon for _, polygon in outlines]
    lengths = np.array([len(polygon) for polygon in polygons])
    ends = np.cumsum(lengths)
    following = np.arange(1, ends[-1] + 1)
    following[ends - 1] = ends - lengths  # the last point of a polygon is joined to its first
    points = map_points(tile.to_canvas, np.concatenate(polygons))
    segments = np.stack([points, points[following]], 1)
    owner = np.repeat([box for box, _ in outlines], lengths)
    outlined = np.unique(owner)
    segments, owner = clip_segments(segments, owner, tile.visible)
    segments, owner = clip_segments(map_points(affine, segments), owner, frame)
    boxes[outlined] = segment_hull(segments, owner, len(boxes))[outlined]
