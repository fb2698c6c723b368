"""Quality focal loss and cross-entropy on logits, distribution focal loss (IoU losses: see boxes.py)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.loss.masks import places

PROBABILITY_FLOOR_LOG = 100.0


def quality_focal_loss(logits: Tensor, labels: Tensor, quality: Tensor, beta: float = 2.0) -> Tensor:
    """Sum of the quality focal loss (GFL, arXiv 2006.04388, equation 4) over all rows and classes.

    logits (..., C); labels (...) with C or more, or negative, meaning background; quality (...) the soft target of the
    label's class. Works on logits, which equals the form on probabilities with logarithms floored at -100.
    """
    classes = logits.shape[-1]
    logits, labels, quality = logits.reshape(-1, classes), labels.reshape(-1), quality.reshape(-1)
    probability = logits.sigmoid()
    negative = F.softplus(logits).clamp(max=PROBABILITY_FLOOR_LOG)
    total = (negative * probability.pow(beta)).sum()
    chosen = places((labels >= 0) & (labels < classes))
    (rows,), columns, target = chosen.indices, chosen.at(labels), chosen.at(quality)
    x, p, n = logits[rows, columns], probability[rows, columns], negative[rows, columns]
    positive = n * (1 - target) + F.softplus(-x).clamp(max=PROBABILITY_FLOOR_LOG) * target
    return total + chosen.kept(positive * (target - p).abs().pow(beta) - n * p.pow(beta)).sum()


def binary_cross_entropy(logits: Tensor, labels: Tensor, quality: Tensor) -> Tensor:
    """Sum of the plain binary cross-entropy with the soft target `quality` at the label's class; shapes as above."""
    classes = logits.shape[-1]
    logits, labels, quality = logits.reshape(-1, classes), labels.reshape(-1), quality.reshape(-1)
    chosen = places((labels >= 0) & (labels < classes))
    return F.softplus(logits).sum() - (logits[chosen.indices[0], chosen.at(labels)] * chosen.at(quality)).sum()


def distribution_focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Two-bin cross-entropy (GFL, equation 6): logits (..., bins), target (...) in [0, bins - 1) -> loss (...)."""
    left = target.floor().long()
    weight = target - left
    log_p = F.log_softmax(logits, -1)
    pair = log_p.gather(-1, torch.stack([left, left + 1], -1))
    return -(pair[..., 0] * (1 - weight) + pair[..., 1] * weight)


def side_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances left, top, right, bottom of points (..., 2) to the sides of corner boxes (..., 4)."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1)
