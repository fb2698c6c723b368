"""The objects of a batch as padded tensors, and what an assigner returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Targets(NamedTuple):
    """Objects of B images, padded to the largest count G.

    boxes (B, G, 4) corners in pixels; labels (B, G) class indices, 0 where padded; mask (B, G) true for real objects.
    """

    boxes: Tensor
    labels: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Targets:
        return Targets(*(item.to(device, non_blocking=True) for item in self))


class Assignment(NamedTuple):
    """Per prior: the object it learns and how well it must score.

    matched (B, N): position of the object in Targets, -1 for background; quality (B, N): the target score of its class
    in [0, 1] (IoU of the decoded box, or TAL's aligned score), 0 for background.
    """

    matched: Tensor
    quality: Tensor

    @property
    def positive(self) -> Tensor:
        return self.matched >= 0


def pad_targets(boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Targets:
    """Per-image boxes (g, 4) and labels (g,) as one padded batch; images without objects are fine."""
    count = max((len(item) for item in boxes), default=0)
    device = boxes[0].device if boxes else torch.device("cpu")
    padded = torch.zeros(len(boxes), count, 4, device=device)
    classes = torch.zeros(len(boxes), count, dtype=torch.long, device=device)
    mask = torch.zeros(len(boxes), count, dtype=torch.bool, device=device)
    for i, (corners, names) in enumerate(zip(boxes, labels, strict=True)):
        if len(corners):
            padded[i, : len(corners)] = corners
            classes[i, : len(corners)] = names
            mask[i, : len(corners)] = True
    return Targets(padded, classes, mask)


def background(batch: int, priors: int, device: torch.device) -> Assignment:
    """The assignment of a batch without any object."""
    return Assignment(
        torch.full((batch, priors), -1, dtype=torch.long, device=device), torch.zeros(batch, priors, device=device)
    )


def class_scores(values: Tensor, labels: Tensor) -> Tensor:
    """Column of each object's class: values (B, N, C), labels (B, G) -> (B, N, G)."""
    return values.gather(2, labels[:, None, :].expand(-1, values.shape[1], -1))


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether each point lies strictly inside each box: (N, 2), (B, G, 4) -> (B, N, G)."""
    x, y = points[None, :, 0, None], points[None, :, 1, None]
    x1, y1, x2, y2 = boxes[:, None].unbind(-1)
    return (x - x1 > 0) & (y - y1 > 0) & (x2 - x > 0) & (y2 - y > 0)
