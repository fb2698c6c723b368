"""A set of drawn shapes in COCO format: real image files with exact boxes, made in seconds, learnable in minutes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from nas.data.coco import write_coco
from nas.data.dataset import DetectionData, Record
from nas.files import write_atomic

CLASSES = ("disc", "square", "triangle", "ring", "cross")
COUNTS = {"train": 240, "val": 60, "test": 60}
SIZE = 320


def draw_shapes(root: Path, seed: int = 0, counts: dict[str, int] | None = None, size: int = SIZE) -> Path:
    """Draw the set into `root` unless it is there: images/SPLIT/*.jpg and annotations/SPLIT.json.

    Pictures are about `size` pixels, of several aspect ratios, with up to eight shapes of any colour on a noisy
    gradient; some are empty. The same seed draws the same pixels. The annotation files are written last.
    """
    numbers = dict(counts or COUNTS)
    if all((root / f"annotations/{split}.json").is_file() for split in numbers):
        return root
    for order, (split, count) in enumerate(numbers.items()):
        records = []
        for index in range(count):
            rng = np.random.default_rng([seed, order, index])
            image, boxes, labels, areas = draw_picture(rng, size)
            path = root / "images" / split / f"{index:04d}.jpg"
            _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
            write_atomic(path, encoded.tobytes())
            number = sum(list(numbers.values())[:order]) + index + 1
            records.append(Record(path, number, image.shape[1], image.shape[0], boxes, labels, areas))
        data = DetectionData("shapes", split, CLASSES, tuple(range(1, len(CLASSES) + 1)), tuple(records))
        write_coco(data, root / "annotations" / f"{split}.json")
    return root


def draw_picture(rng: np.random.Generator, size: int = SIZE) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """An RGB picture with its boxes (K, 4), labels (K,) and mask areas (K,); shapes overlap little."""
    width, height = ((size, size), (size, size * 3 // 4), (size * 3 // 4, size))[rng.integers(3)]
    image = _background(rng, height, width)
    boxes: list[NDArray] = []
    labels, areas = [], []
    wanted = int(rng.integers(0, 9))
    for _ in range(wanted * 6):
        if len(boxes) == wanted:
            break
        side = float(np.exp(rng.uniform(np.log(0.06), np.log(0.4)))) * size
        radius = side / 2
        centre = np.array([rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)])
        place = np.concatenate([centre - radius, centre + radius])
        if any(_overlap(place, other) > 0.1 for other in boxes):
            continue
        label = int(rng.integers(len(CLASSES)))
        mask = _mask(label, centre, radius, float(rng.uniform(0, 2 * np.pi)), height, width)
        ys, xs = np.nonzero(mask > 127)
        if not len(xs):
            continue
        colour = _contrasting(rng, image[mask > 127].mean(0))
        alpha = mask[..., None].astype(np.float32) / 255
        image = np.rint(image + alpha * (colour - image)).astype(np.uint8)
        boxes.append(np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], np.float32))
        labels.append(label)
        areas.append(float(len(xs)))
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return image, corners, np.array(labels, np.int64), np.array(areas, np.float64)


def _background(rng: np.random.Generator, height: int, width: int) -> NDArray:
    corners = rng.uniform(40, 215, (2, 2, 3)).astype(np.float32)
    smooth = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(smooth + rng.normal(0, 6, (height, width, 1)), 0, 255).astype(np.uint8)


def _contrasting(rng: np.random.Generator, behind: NDArray) -> NDArray:
    """A colour that stands out from the mean colour behind it."""
    colours = rng.uniform(0, 255, (8, 3))
    return colours[np.abs(colours - behind).sum(1).argmax()].astype(np.float32)


def _mask(label: int, centre: NDArray, radius: float, angle: float, height: int, width: int) -> NDArray:
    mask = np.zeros((height, width), np.uint8)
    middle, bits = (round(centre[0] * 16), round(centre[1] * 16)), 4
    name = CLASSES[label]
    if name == "disc":
        cv2.circle(mask, middle, round(radius * 16), 255, -1, cv2.LINE_AA, bits)
    elif name == "ring":
        thickness = max(round(radius * 0.35), 1)
        cv2.circle(mask, middle, round((radius - thickness / 2) * 16), 255, thickness, cv2.LINE_AA, bits)
    else:
        for polygon in _polygons(name, angle):
            points = np.rint((centre + radius * polygon) * 16).astype(np.int32)
            cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, bits)
    return mask


def _polygons(name: str, angle: float) -> list[NDArray]:
    """Outlines in the unit circle."""
    if name == "cross":
        bar = np.array([[-0.95, -0.25], [0.95, -0.25], [0.95, 0.25], [-0.95, 0.25]])
        turns = (angle, angle + np.pi / 2)
        return [bar @ np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]]) for t in turns]
    corners = 4 if name == "square" else 3
    angles = angle + 2 * np.pi * np.arange(corners) / corners
    return [np.stack([np.cos(angles), np.sin(angles)], 1)]


def _overlap(box: NDArray, other: NDArray) -> float:
    """Intersection over the smaller area."""
    sides = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)
    smaller = min(np.prod(box[2:] - box[:2]), np.prod(other[2:] - other[:2]))
    return float(np.prod(sides) / max(smaller, 1e-6))
