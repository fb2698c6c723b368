"""Copy-paste: objects of another image, rare and small ones first, put over an image.

After Ghiasi et al. (arXiv 2012.07177), with boxes in the place of masks: a rectangle brings what else it shows along, so
the labels of objects that lie in it come too, and what it hides loses its box.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from nas.data.dataset import Record

#: The most objects that are pasted into an image, and the factors of their size in an input.
MOST, ZOOM = 3, (0.75, 1.5)
#: The share of a box that must show for it to stay, and the shortest side of a pasted object in pixels at 640.
SHOWING, LEAST = 0.5, 8.0
#: Objects shorter than this share of their image (the root of their area's share) weigh no more than those of it.
SMALLEST = 0.02


class Donors:
    """Which images and objects are pasted: in proportion to 1 / (boxes of the class) / (side as a share of the image).

    An object that meets a crowd region is never taken, as others would come along without labels.
    """

    def __init__(self, records: Sequence[Record], num_classes: int) -> None:
        counts = np.zeros(num_classes)
        for record in records:
            counts += np.bincount(record.labels, minlength=num_classes)
        self.weights = [_weights(record, counts) for record in records]
        self.heaviest = np.array([weights.max(initial=0.0) for weights in self.weights])

    def image(self, rng: np.random.Generator, pool: NDArray[np.int64]) -> int | None:
        """One of the images of the pool, by its heaviest object; None if none of them has one."""
        weights = self.heaviest[pool]
        return int(rng.choice(pool, p=weights / weights.sum())) if weights.any() else None

    def objects(self, rng: np.random.Generator, image: int) -> NDArray[np.int64]:
        """From one to `MOST` objects of an image that has some, each once."""
        weights = self.weights[image]
        count = min(int(rng.integers(1, MOST + 1)), int((weights > 0).sum()))
        return rng.choice(len(weights), count, replace=False, p=weights / weights.sum())


def _weights(record: Record, counts: NDArray) -> NDArray[np.float64]:
    boxes = record.boxes.astype(np.float64)
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1) / (record.width * record.height))
    weights = 1 / (counts[record.labels] * np.maximum(sides, SMALLEST))
    alone = [not _covered(record.crowd_boxes, box).any() for box in boxes]
    return weights * np.array(alone, bool)


def paste_objects(
    image: NDArray, boxes: NDArray, labels: NDArray, donor: Record, pixels: NDArray, chosen: NDArray[np.int64],
    scale: tuple[float, float], rng: np.random.Generator,
) -> tuple[NDArray, NDArray, NDArray]:  # fmt: skip
    """Paste objects into the RGB image (S, S, 3), in place, each at a place of its own; image, boxes and labels with them.

    pixels: the donor's picture at any size, RGB or RGBA; chosen: its objects; scale: pixels of an input a pixel of the
    donor, in x and y. A box of which less than `SHOWING` of its first area is left is dropped, another one shrinks to the
    hull of what shows.
    """  # fmt: skip
    size = image.shape[0]
    boxes, labels = boxes.astype(np.float64), labels.copy()
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    left = area.copy()
    for index in chosen:
        zoom, mirrored, at = rng.uniform(*ZOOM), rng.random() < 0.5, rng.random(2)
        box = donor.boxes[index].astype(np.float64)
        width, height = (int(side) for side in np.rint((box[2:] - box[:2]) * scale * np.array(zoom)))
        if min(width, height) < LEAST * size / 640 or max(width, height) > size:
            continue
        x, y = (int(share * (size - side)) for share, side in zip(at, (width, height), strict=True))
        crop = _crop(pixels, donor, box, (width, height))
        image[y : y + height, x : x + width] = crop[:, ::-1] if mirrored else crop
        place = np.array([x, y, x + width, y + height], np.float64)
        left = left - _covered(boxes, place)
        boxes = visible_hull(boxes, place)
        keep = left >= SHOWING * area
        new, kinds = _inside(donor, box, place, mirrored)
        large = (new[:, 2:] - new[:, :2]).min(1, initial=size) >= 2 * size / 640
        new, kinds = new[large], kinds[large]
        boxes, labels = np.concatenate([boxes[keep], new]), np.concatenate([labels[keep], kinds])
        own = (new[:, 2:] - new[:, :2]).prod(1)
        area, left = np.concatenate([area[keep], own]), np.concatenate([left[keep], own])
    return image, boxes.astype(np.float32), labels


def visible_hull(boxes: NDArray, place: NDArray) -> NDArray:
    """The hulls (K, 4) of what a rectangle that is put over the boxes leaves of them: smaller where it cuts off a side."""
    hull = boxes.copy()
    for low, high, across in ((0, 2, 1), (1, 3, 0)):
        whole = (place[across] <= boxes[:, across]) & (place[across + 2] >= boxes[:, across + 2])
        first, last = boxes[:, low], boxes[:, high]
        hull[:, low] = np.where(whole & (place[low] <= first), np.clip(place[high], first, last), first)
        hull[:, high] = np.where(whole & (place[high] >= last), np.clip(place[low], first, last), last)
    return hull


def _inside(donor: Record, box: NDArray, place: NDArray, mirrored: bool) -> tuple[NDArray, NDArray]:
    """The donor's boxes that show by at least `SHOWING` in the rectangle `box`, cut to it, where it was put; their labels."""
    own = donor.boxes.astype(np.float64)
    keep = _covered(own, box) >= SHOWING * (own[:, 2:] - own[:, :2]).prod(1)
    shares = (np.clip(own[keep], box[[0, 1, 0, 1]], box[[2, 3, 2, 3]]) - box[[0, 1, 0, 1]]) / np.tile(
        box[2:] - box[:2], 2
    )
    if mirrored:
        shares = shares[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (1, 0, 1, 0)
    return place[[0, 1, 0, 1]] + shares * np.tile(place[2:] - place[:2], 2), donor.labels[keep]


def _crop(pixels: NDArray, donor: Record, box: NDArray, size: tuple[int, int]) -> NDArray:
    """The box's pixels, RGB, resized to (width, height)."""
    height, width = pixels.shape[:2]
    x1, y1, x2, y2 = np.rint(box * np.tile((width / donor.width, height / donor.height), 2)).astype(int)
    x1, y1 = min(x1, width - 1), min(y1, height - 1)
    crop = np.ascontiguousarray(pixels[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1), :3])
    smaller = size[0] * size[1] < crop.shape[0] * crop.shape[1]
    return cv2.resize(crop, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)


def _covered(boxes: NDArray, place: NDArray) -> NDArray[np.float64]:
    """The area of each box (K,) that a rectangle covers."""
    sides = np.minimum(boxes[:, 2:], place[2:]) - np.maximum(boxes[:, :2], place[:2])
    return np.clip(sides, 0, None).prod(1).astype(np.float64)
