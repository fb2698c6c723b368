"""AlignedOTA (DAMO-YOLO section 2.4) and SimOTA (YOLOX): dynamic-k selection on a class plus IoU cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nas.loss.assignment.targets import Assignment, Targets, background, class_scores, inside
from nas.loss.boxes import pairwise_iou

PENALTY = 1e8


@dataclass(frozen=True, slots=True)
class OTA:
    """Dynamic-k assigner; the defaults are AlignedOTA as the official code computes it.

    soft: the class cost compares with the IoU instead of 1 (the alignment); power: exponent of the focal factor
        |target - p| (2 in the code, 1 in the report's equation 2, 0 in SimOTA).
    iou_cost: "log" is -ln IoU (the code), "linear" is -IoU (the report).
    radius: half side in strides of the centre square; candidates: IoUs that are summed into k.
    """

    soft: bool = True
    power: float = 2.0
    iou_cost: Literal["log", "linear"] = "log"
    class_weight: float = 1.0
    iou_weight: float = 3.0
    radius: float = 2.5
    candidates: int = 10

    @torch.no_grad()
    def __call__(
        self, probabilities: Tensor, boxes: Tensor, points: Tensor, strides: Tensor, targets: Targets
    ) -> Assignment:
        """Assign (B, N, C) scores after the sigmoid and (B, N, 4) decoded boxes to `targets`."""
        batch, priors = boxes.shape[:2]
        if targets.boxes.shape[1] == 0 or priors == 0:
            return background(batch, priors, boxes.device)
        in_box = inside(points, targets.boxes)
        centre = (targets.boxes[..., :2] + targets.boxes[..., 2:]) / 2
        near = (points[None, :, None] - centre[:, None]).abs().amax(-1) < self.radius * strides[None, :, None]
        real = targets.mask[:, None]
        valid = ((in_box | near) & real).any(-1, keepdim=True) & real
        iou = pairwise_iou(boxes, targets.boxes).mul_(valid)
        cost = self._cost(probabilities, iou, targets.labels)
        cost.add_((~(in_box & near)).to(cost.dtype), alpha=PENALTY).masked_fill_(~valid, torch.inf)
        return _select(cost, iou, valid, min(self.candidates, priors))

    def _cost(self, p: Tensor, iou: Tensor, labels: Tensor) -> Tensor:
        """Class and IoU cost (B, N, G): only the object's own class differs from the all-background row sum."""
        negative = -torch.log1p(-p).clamp_(min=-100)
        row = _focal(negative, p, self.power)
        own = class_scores(p, labels)
        target = iou if self.soft else torch.ones_like(iou)
        positive = -target * own.log().clamp_(min=-100) + (1 - target) * class_scores(negative, labels)
        class_cost = row.sum(-1, keepdim=True) - class_scores(row, labels)
        class_cost += _focal(positive, (target - own).abs(), self.power)
        box_cost = -torch.log(iou + 1e-7) if self.iou_cost == "log" else -iou
        return class_cost.mul_(self.class_weight).add_(box_cost, alpha=self.iou_weight)


def sim_ota() -> OTA:
    """SimOTA of YOLOX (arXiv 2107.08430) without objectness: plain cross-entropy to a hard label."""
    return OTA(soft=False, power=0.0)


def _focal(value: Tensor, factor: Tensor, power: float) -> Tensor:
    if power == 0:
        return value
    return value * (factor.square() if power == 2 else factor.pow(power))


def _select(cost: Tensor, iou: Tensor, valid: Tensor, candidates: int) -> Assignment:
    """The k cheapest priors of each object; a prior wanted by several goes to the cheapest of all objects."""
    count = iou.topk(candidates, dim=1).values.sum(1).int().clamp_(min=1)
    order = cost.topk(candidates, dim=1, largest=False).indices
    wanted = torch.arange(candidates, device=cost.device)[None, :, None] < count[:, None]
    chosen = torch.zeros_like(valid).scatter_(1, order, wanted) & valid
    claims = chosen.sum(-1)
    index = chosen.int().argmax(-1)
    index = torch.where(claims > 1, cost.argmin(-1), index)
    positive = claims > 0
    quality = iou.gather(2, index[..., None]).squeeze(-1)
    return Assignment(torch.where(positive, index, -1), torch.where(positive, quality, 0.0))
