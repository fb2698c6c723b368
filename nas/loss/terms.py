"""Box overlaps and the terms of the detection loss."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def counting_waits(device: torch.device) -> bool:
    """Whether the host must wait for the device to learn how many places a mask has."""
    return device.type != "cpu"


class Places(NamedTuple):
    """indices: one tensor (K,) a dimension. On the CPU the true places; elsewhere all places, with `keep` (K,) for them.

    Sums over `at` values then have the same terms, and zeros for the rest.
    """

    indices: tuple[Tensor, ...]
    keep: Tensor | None

    def at(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """Values (..., same leading dimensions as the mask) at the places: (K, ...), `fill` where the mask is false."""
        return self.kept(values[self.indices], fill)

    def kept(self, rows: Tensor, fill: Tensor | float = 0.0) -> Tensor:
        """Rows (K, ...), one a place, with `fill` where the mask is false."""
        if self.keep is None:
            return rows
        keep = self.keep.view(-1, *(1,) * (rows.ndim - 1))
        return torch.where(keep, rows, torch.as_tensor(fill, dtype=rows.dtype, device=rows.device))


def places(mask: Tensor) -> Places:
    """The places of a mask of any shape."""
    if not counting_waits(mask.device):
        return Places(mask.nonzero(as_tuple=True), None)
    every = torch.arange(mask.numel(), device=mask.device)
    return Places(torch.unravel_index(every, mask.shape), mask.reshape(-1))


OverlapKind = Literal["iou", "giou", "ciou"]


def pairwise_iou(first: Tensor, second: Tensor, eps: float = 1e-6) -> Tensor:
    """IoU of every box of `first` (..., N, 4) with every box of `second` (..., M, 4), corners: (..., N, M).

    The union is floored at `eps`, so that empty boxes give 0.
    """
    one, two = first.unsqueeze(-2).unbind(-1), second.unsqueeze(-3).unbind(-1)
    width = (torch.minimum(one[2], two[2]) - torch.maximum(one[0], two[0])).clamp_(min=0)
    height = (torch.minimum(one[3], two[3]) - torch.maximum(one[1], two[1])).clamp_(min=0)
    inter = width.mul_(height)
    union = (one[2] - one[0]) * (one[3] - one[1]) + (two[2] - two[0]) * (two[3] - two[1]) - inter
    return inter / union.clamp_(min=eps)


def overlap(first: Tensor, second: Tensor, kind: OverlapKind = "iou", eps: float = 1e-6) -> Tensor:
    """Element-wise overlap of broadcastable corner boxes (..., 4), differentiable.

    iou and giou floor the union and the enclosing area at `eps` (GFL's convention); ciou adds `eps` to heights, union
    and squared diagonal, with the aspect weight outside the gradient (CIoU paper, arXiv 1911.08287, equation 10).
    """
    a, b = first.unbind(-1), second.unbind(-1)
    width = (torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0])).clamp(min=0)
    height = (torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1])).clamp(min=0)
    inter = width * height
    w1, h1, w2, h2 = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    if kind == "ciou":
        h1, h2 = h1 + eps, h2 + eps
        union = w1 * h1 + w2 * h2 - inter + eps
    else:
        union = (w1 * h1 + w2 * h2 - inter).clamp(min=eps)
    iou = inter / union
    if kind == "iou":
        return iou
    hull_w = torch.maximum(a[2], b[2]) - torch.minimum(a[0], b[0])
    hull_h = torch.maximum(a[3], b[3]) - torch.minimum(a[1], b[1])
    if kind == "giou":
        hull = (hull_w.clamp(min=0) * hull_h.clamp(min=0)).clamp(min=eps)
        return iou - (hull - union) / hull
    diagonal = hull_w**2 + hull_h**2 + eps
    distance = ((b[0] + b[2] - a[0] - a[2]) ** 2 + (b[1] + b[3] - a[1] - a[3]) ** 2) / 4
    aspect = 4 / math.pi**2 * (torch.atan(w2 / h2) - torch.atan(w1 / h1)) ** 2
    with torch.no_grad():
        weight = aspect / (aspect - iou + (1 + eps))
    return iou - (distance / diagonal + aspect * weight)


PROBABILITY_FLOOR_LOG = 100.0


def quality_focal_loss(
    logits: Tensor, labels: Tensor, quality: Tensor, weights: Tensor | None = None, beta: float = 2.0
) -> Tensor:
    """Sum of the quality focal loss (GFL, arXiv 2006.04388, equation 4) over all rows and classes.

    logits (..., C); labels (...) with C or more, or negative, meaning background; quality (...) the soft target of the
    label's class; weights (C,) of a row's term at its label, None: 1. Works on logits, which equals the form on
    probabilities with logarithms floored at -100.
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
    learned = positive * (target - p).abs().pow(beta)
    if weights is not None:
        learned = learned * weights[columns]
    return total + chosen.kept(learned - n * p.pow(beta)).sum()


def binary_cross_entropy(logits: Tensor, labels: Tensor, quality: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum of the plain binary cross-entropy with the soft target `quality` at the label's class; shapes as above."""
    classes = logits.shape[-1]
    logits, labels, quality = logits.reshape(-1, classes), labels.reshape(-1), quality.reshape(-1)
    chosen = places((labels >= 0) & (labels < classes))
    columns = chosen.at(labels)
    x, target = logits[chosen.indices[0], columns], chosen.at(quality)
    total = F.softplus(logits).sum() - (x * target).sum()
    if weights is not None:  # what a weight of 1 has counted already is left out
        total = total + chosen.kept((weights[columns] - 1) * (F.softplus(x) - x * target)).sum()
    return total


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
