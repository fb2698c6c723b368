"""Overlaps of corner boxes: IoU of all pairs, and the element-wise IoU, GIoU and CIoU that the losses use."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

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
