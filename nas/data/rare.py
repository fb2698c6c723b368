"""How rare the classes of a data set are, and what balances them: repeats of images, weights of classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.data.dataset import DetectionData


def image_shares(data: DetectionData) -> NDArray[np.float64]:
    """The share of the images that show each class (C,)."""
    present = [np.unique(record.labels) for record in data.records]
    counts = np.bincount(np.concatenate([np.zeros(0, np.int64), *present]), minlength=data.num_classes)
    return counts / max(len(data), 1)


def repeat_factors(data: DetectionData, threshold: float) -> NDArray[np.float64]:
    """How often each image (N,) comes in an epoch on average, at least once: repeat factor sampling of LVIS.

    A class in the share f of the images has the factor max(1, sqrt(threshold / f)), an image the largest of its classes
    (arXiv 1908.03195, section on repeat factor sampling); one without objects has 1.
    """
    shares = np.maximum(image_shares(data), 1e-12)
    factors = np.maximum(1.0, np.sqrt(threshold / shares))
    return np.array([factors[record.labels].max(initial=1.0) for record in data.records])


def class_weights(boxes: NDArray[np.int64], power: float) -> NDArray[np.float64]:
    """Weights (C,) in proportion to (number of boxes)^-power, whose mean over all boxes is 1.

    boxes: how many of each class; a class without boxes weighs as one with a single box.
    """
    known = np.maximum(boxes, 1)
    raw = known.astype(np.float64) ** -power
    return raw * known.sum() / (raw * known).sum()
