"""From scores and boxes of all priors to detections: threshold, then exact greedy NMS, in plain torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

#: Rows that are compared at once: the intermediate maps stay in the processor's cache.
BLOCK = 128


class Detections(NamedTuple):
    """What was found in one image, best first: corners (K, 4) in pixels, scores (K,), labels (K,) from 0."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def postprocess(
    scores: Tensor,
    boxes: Tensor,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.7,
    max_detections: int = 500,
    max_candidates: int = 30_000,
    agnostic: bool = False,
    nms: bool = True,
) -> list[Detections]:
    """Detections of each image from scores (B, N, C) and boxes (B, N, 4), as the official post-processing.

    Every (prior, class) pair with a score strictly above the threshold is a candidate; beyond `max_candidates` the best
    are kept. A candidate is dropped if it overlaps a kept, better one of its class (of any class if `agnostic`) with an
    IoU above the threshold; equal scores go by prior, then class. `nms=False` is for end-to-end models. Boxes are not
    clipped. Detections lie on the CPU: candidates go there before NMS, whose rounds would each wait for a GPU.
    """
    found = []
    for image_scores, image_boxes in zip(scores.detach(), boxes.detach(), strict=True):
        values, priors, labels = _candidates(image_scores, score_threshold, max_candidates)
        corners, values, labels = image_boxes[priors].cpu(), values.cpu(), labels.cpu()
        if nms:
            groups = torch.zeros_like(labels) if agnostic else labels
            chosen = greedy_nms(corners, groups, iou_threshold, max_detections)
        else:
            chosen = torch.arange(min(len(values), max_detections))
        found.append(Detections(corners[chosen], values[chosen], labels[chosen]))
    return found


def greedy_nms(boxes: Tensor, groups: Tensor, iou_threshold: float, max_kept: int) -> Tensor:
    """Indices of the kept boxes, ascending, of boxes (K, 4) sorted best first that compete inside groups (K,).

    The result is that of the sequential algorithm: inside a block the fixed point of "kept unless a kept, better one
    overlaps" is unique and reached after as many rounds as the longest chain of suppressions.
    """
    if len(boxes) == 0:
        return torch.zeros(0, dtype=torch.long, device=boxes.device)
    order = torch.sort(groups, stable=True).indices
    boxes, groups = boxes[order].float(), groups[order]
    starts = torch.searchsorted(groups, groups)  # where the group of each row begins
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    columns = [*boxes.unbind(1), area]
    keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    rank = torch.arange(BLOCK, device=boxes.device)
    earlier = rank[:, None] < rank
    for begin in range(0, len(boxes), BLOCK):
        block = slice(begin, min(begin + BLOCK, len(boxes)))
        size = block.stop - begin
        alive = torch.ones(size, dtype=torch.bool, device=boxes.device)
        first = int(starts[begin])
        before = first + keep[first:begin].nonzero().squeeze(1)
        if len(before) >= max_kept:  # this group has all that may be returned
            if int(starts[block.stop - 1]) == first:
                continue
            alive = starts[block] != first
        elif len(before):
            suppressed = _overlaps(columns, before, block, iou_threshold).any(0)
            alive = ~suppressed | (starts[block] != first)
        inside = _overlaps(columns, block, block, iou_threshold)
        inside &= (starts[block, None] == starts[None, block]) & earlier[:size, :size]
        keep[block] = _settle(alive, inside)
    kept = order[keep].sort().values
    return kept[:max_kept]


def _overlaps(columns: list[Tensor], rows: Tensor | slice, others: slice, iou_threshold: float) -> Tensor:
    """Whether the IoU of every row with every other row is above the threshold."""
    x1, y1, x2, y2, area = (column[rows, None] for column in columns)
    u1, v1, u2, v2, other = (column[None, others] for column in columns)
    inter = torch.minimum(x2, u2).sub_(torch.maximum(x1, u1)).clamp_(min=0)
    inter.mul_(torch.minimum(y2, v2).sub_(torch.maximum(y1, v1)).clamp_(min=0))
    union = (area + other).sub_(inter)
    return inter.div_(union) > iou_threshold


def _settle(alive: Tensor, suppresses: Tensor) -> Tensor:
    """Which rows stay, when row i drops row j > i where `suppresses[i, j]` and i itself stays."""
    weights, keep = suppresses.view(torch.uint8), alive  # a maximum of bytes is several times faster than `any`
    while True:
        after = alive & ((weights * keep[:, None]).amax(0) == 0)
        if torch.equal(after, keep):
            return keep
        keep = after


def _candidates(scores: Tensor, threshold: float, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, priors and labels of the pairs above the threshold, best first."""
    classes = scores.shape[1]
    if scores.is_contiguous():
        flat = _places_above(scores, threshold)
    else:  # a transposed view: search it as it lies in memory
        turned = _places_above(scores.T, threshold)
        flat = ((turned % len(scores)) * classes + turned // len(scores)).sort().values
    priors = torch.div(flat, classes, rounding_mode="floor")
    labels = flat - priors * classes
    values, order = scores[priors, labels].sort(descending=True, stable=True)
    order = order[:limit]
    return values[:limit], priors[order], labels[order]


def _places_above(values: Tensor, threshold: float) -> Tensor:
    """Flat places of what is above the threshold.

    On the CPU NumPy looks for them, in one thread: torch's threads would wait for a runtime's, which spin after a run.
    """
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(np.flatnonzero(values.numpy() > threshold))
    return (values > threshold).reshape(-1).nonzero().squeeze(1)
