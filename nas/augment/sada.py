"""SADA, the box-level augmentation policy that DAMO-YOLO trains with: colour changes that fade out around chosen boxes,
and boxes whose own pixels are mirrored, turned, sheared, or copied elsewhere with a new label.

Source: the policy decoded from the official parameters; level L of ten gives factor 0.1 + 1.8 L/10, 30 L/10 degrees of
rotation, 15 L/10 of shear, 120 L/10 pixels of translation, 0.4296875 L/10 of solarisation.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

FILL = (102, 115, 122)
BOX_RATE = 0.3


class SubPolicy(NamedTuple):
    """A colour step and a geometric step, each with its probability at full strength and its magnitude."""

    colour: str
    colour_probability: float
    amount: float
    geometry: str
    geometry_probability: float
    magnitude: float


POLICY = (
    SubPolicy("colour", 0.4, 0.46, "translate_x", 0.4, 48.0),
    SubPolicy("brightness", 0.2, 0.82, "rotate", 0.4, 6.0),
    SubPolicy("sharpness", 0.4, 0.46, "shear_x", 0.2, 9.0),
    SubPolicy("solarise_add", 0.2, 0.0859375, "mirror", 0.5, 0.0),
    SubPolicy("colour", 0.0, 1.54, "translate_y", 0.2, 96.0),
)
COLOUR_SHARE = (7 / 13, 5 / 13, 1 / 13)  # of small, medium and other boxes
GEOMETRY_SHARE = (1 / 3, 1 / 3, 1 / 3)


def apply_sada(
    image: NDArray,
    boxes: NDArray,
    labels: NDArray,
    rng: np.random.Generator,
    strength: float,
) -> tuple[NDArray, NDArray, NDArray]:
    """One sub-policy on an image (H, W, 3): each step fires with its probability times `strength` in [0, 1].

    A translated box is appended to boxes (K, 4) and labels (K,), clipped; the input image is not written to.
    """
    policy = POLICY[rng.integers(len(POLICY))]
    colour = rng.random() < policy.colour_probability * strength
    geometry = rng.random() < policy.geometry_probability * strength
    sign = 1.0 if rng.random() < 0.5 else -1.0
    if not len(boxes) or not (colour or geometry):
        return image, boxes, labels
    splits = np.array([2048.0, 10240.0, 51200.0]) * min(image.shape[:2]) / 800
    areas = np.maximum((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), 1e-6)
    group = np.searchsorted(splits[:2], areas, side="right")
    if colour:
        chosen = rng.random(len(boxes)) < BOX_RATE * np.take(COLOUR_SHARE, group)
        if chosen.any():
            image = _change_colour(image, boxes[chosen], _spread(areas[chosen], splits), policy.colour, policy.amount)
    if geometry:
        chosen = rng.random(len(boxes)) < BOX_RATE * np.take(GEOMETRY_SHARE, group)
        if chosen.any():
            return _move_boxes(image.copy(), boxes, labels, chosen, policy.geometry, sign * policy.magnitude)
    return image, boxes, labels


def _spread(areas: NDArray, splits: NDArray) -> NDArray:
    """How far the Gaussian of a box reaches beyond it: the smaller the box, the farther."""
    factors = np.select(
        [areas < splits[0], areas < splits[1], areas < splits[2]],
        [6 * splits[0] / areas, (splits[0] + splits[1]) / areas, 0.4 * splits[2] / areas],
        0.4,
    )
    return np.asarray(factors)


def _change_colour(image: NDArray, boxes: NDArray, spread: NDArray, operation: str, amount: float) -> NDArray:
    height, width = image.shape[:2]
    reach = np.sqrt(spread * height * width / (2 * np.pi))
    across = _gaussian(width, (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 2] - boxes[:, 0]) / width * reach)
    down = _gaussian(height, (boxes[:, 1] + boxes[:, 3]) / 2, (boxes[:, 3] - boxes[:, 1]) / height * reach)
    weight = np.minimum(down.T @ across, 1.0)[..., None]
    pixels = image.astype(np.float32)
    if operation == "solarise_add":
        change = np.where(image <= 127, np.float32(amount * 255), np.float32(0))
    else:
        change = (np.float32(1 - amount)) * (_faded(pixels, operation) - pixels)
    return np.clip(np.rint(pixels + weight * change), 0, 255).astype(np.uint8)


def _faded(pixels: NDArray, operation: str) -> NDArray:
    """What the operation blends the image with: grey, black, or a blur."""
    if operation == "colour":
        return (pixels @ np.array([0.2989, 0.587, 0.114], np.float32))[..., None]
    if operation == "brightness":
        return np.zeros_like(pixels)
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
    return cv2.filter2D(pixels, -1, kernel, borderType=cv2.BORDER_REFLECT_101)


def _gaussian(length: int, centres: NDArray, sigmas: NDArray) -> NDArray:
    """(K, length): a peak of one at each centre."""
    steps = np.arange(length, dtype=np.float32) - centres[:, None]
    return np.exp(-0.5 * (steps / np.maximum(sigmas[:, None], 1e-6)) ** 2).astype(np.float32)


def _move_boxes(
    image: NDArray, boxes: NDArray, labels: NDArray, chosen: NDArray, operation: str, magnitude: float
) -> tuple[NDArray, NDArray, NDArray]:
    height, width = image.shape[:2]
    limit = (width, height, width, height)
    original = image.copy()
    added, added_labels = [], []
    for box, label in zip(boxes[chosen], labels[chosen], strict=True):
        left, top, right, bottom = np.clip(np.rint(box), 0, limit).astype(int)
        if right <= left or bottom <= top:
            continue
        crop = original[top:bottom, left:right]
        if operation in ("translate_x", "translate_y"):
            dx, dy = (round(magnitude), 0) if operation == "translate_x" else (0, round(magnitude))
            _blend(image, crop, left + dx, top + dy)
            shifted = np.clip(box + np.array([dx, dy, dx, dy], np.float32), 0, limit)
            if shifted[2] > shifted[0] and shifted[3] > shifted[1]:
                added.append(shifted)
                added_labels.append(label)
        else:
            _blend(image, _transformed(crop, operation, magnitude), left, top)
    if added:
        boxes = np.concatenate([boxes, np.array(added, np.float32)]).astype(np.float32)
        labels = np.concatenate([labels, np.array(added_labels, np.int64)])
    return image, boxes, labels


def _transformed(crop: NDArray, operation: str, degrees: float) -> NDArray:
    if operation == "mirror":
        return crop[:, ::-1]
    height, width = crop.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    if operation == "rotate":
        matrix = cv2.getRotationMatrix2D(centre, degrees, 1.0)
    else:
        slope = np.tan(np.deg2rad(degrees))
        matrix = np.array([[1.0, slope, -slope * centre[1]], [0.0, 1.0, 0.0]])
    return cv2.warpAffine(np.ascontiguousarray(crop), matrix, (width, height), borderValue=FILL)


def _blend(image: NDArray, crop: NDArray, left: int, top: int) -> None:
    """Blend the crop into the image at (left, top) with a round Gaussian; what falls outside is cut off."""
    height, width = crop.shape[:2]
    sigma = np.array([np.sqrt(height * width / (2 * np.pi))])
    weight = _gaussian(height, np.array([(height - 1) / 2]), sigma).T @ _gaussian(
        width, np.array([(width - 1) / 2]), sigma
    )
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + width, image.shape[1]), min(top + height, image.shape[0])
    if x2 <= x1 or y2 <= y1:
        return
    inside = (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left))
    below = image[y1:y2, x1:x2].astype(np.float32)
    mixed = below + weight[inside][..., None] * (crop[inside].astype(np.float32) - below)
    image[y1:y2, x1:x2] = np.rint(mixed).astype(np.uint8)
