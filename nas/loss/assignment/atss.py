"""Adaptive training sample selection (ATSS, arXiv 1912.02424) on point priors, for the assigner ablation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nas.loss.assignment.targets import Assignment, Targets, background, inside
from nas.loss.boxes import pairwise_iou


@dataclass(frozen=True, slots=True)
class ATSS:
    """The `topk` nearest priors of every level whose anchor overlaps at least the mean plus deviation of them all.

    Every prior carries a square anchor of side scale * stride; the quality is the IoU of the decoded box.
    """

    topk: int = 9
    scale: float = 8.0

    @torch.no_grad()
    def __call__(
        self, probabilities: Tensor, boxes: Tensor, points: Tensor, strides: Tensor, targets: Targets
    ) -> Assignment:
        """Assign priors to `targets`; scores and decoded boxes serve the quality alone."""
        batch, priors = boxes.shape[:2]
        if targets.boxes.shape[1] == 0 or priors == 0:
            return background(batch, priors, boxes.device)
        half = strides[:, None] * self.scale / 2
        anchor_iou = pairwise_iou(torch.cat([points - half, points + half], 1)[None], targets.boxes)
        centre = (targets.boxes[..., :2] + targets.boxes[..., 2:]) / 2
        distance = (points[None, :, None] - centre[:, None]).square().sum(-1)
        candidate = torch.zeros_like(anchor_iou, dtype=torch.bool)
        for stride in strides.unique():
            level = (strides == stride).nonzero().squeeze(1)
            nearest = distance[:, level].topk(min(self.topk, len(level)), dim=1, largest=False).indices
            candidate.scatter_(1, level[nearest], True)
        candidate &= targets.mask[:, None]
        count = candidate.sum(1, keepdim=True).clamp_(min=1)
        mean = (anchor_iou * candidate).sum(1, keepdim=True) / count
        spread = ((anchor_iou - mean).square() * candidate).sum(1, keepdim=True) / (count - 1).clamp_(min=1)
        chosen = candidate & (anchor_iou >= mean + spread.sqrt()) & inside(points, targets.boxes)
        index = torch.where(chosen, anchor_iou, -1.0).argmax(-1)
        positive = chosen.any(-1)
        quality = pairwise_iou(boxes, targets.boxes).gather(2, index[..., None]).squeeze(-1)
        return Assignment(torch.where(positive, index, -1), torch.where(positive, quality, 0.0))
