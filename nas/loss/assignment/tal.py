"""Task-aligned learning (TOOD, arXiv 2108.07755): the assigner of the YOLOv8, YOLOv9 and YOLO11 baselines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nas.loss.assignment.targets import Assignment, Targets, background, class_scores, inside
from nas.loss.boxes import overlap
from nas.loss.masks import counting_waits


@dataclass(frozen=True, slots=True)
class TAL:
    """The `topk` priors with the highest score^alpha * CIoU^beta inside each object.

    keep: after conflicts only the best `keep` priors of an object stay (1 gives YOLO26's one-to-one branch).
    floor: added to an object's best metric before the others are divided by it. The published programs add 1e-9, which
    silences an object whose best prior is below it (CIoU 0.03 at a score of 0.001): its soft labels and box weights
    vanish, so it is never learnt. The paper has no floor: the best prior's label is its CIoU, however small.
    """

    topk: int = 10
    alpha: float = 0.5
    beta: float = 6.0
    keep: int | None = None
    floor: float = 1e-9

    @torch.no_grad()
    def __call__(
        self, probabilities: Tensor, boxes: Tensor, points: Tensor, strides: Tensor, targets: Targets
    ) -> Assignment:
        """Assign (B, N, C) scores after the sigmoid and (B, N, 4) decoded boxes to `targets`."""
        batch, priors = boxes.shape[:2]
        if targets.boxes.shape[1] == 0 or priors == 0:
            return background(batch, priors, boxes.device)
        candidate = inside(points, targets.boxes) & targets.mask[:, None]
        iou = _overlaps(boxes, targets.boxes, candidate)
        own = class_scores(probabilities, targets.labels)
        metric = torch.where(candidate, own.pow(self.alpha) * iou.pow(self.beta), 0.0)
        chosen = _top(metric, min(self.topk, priors)) & candidate
        claims = chosen.sum(-1)
        index = torch.where(claims > 1, iou.argmax(-1), chosen.int().argmax(-1))
        chosen = torch.zeros_like(chosen).scatter_(2, index[..., None], (claims > 0)[..., None])
        if self.keep is not None:
            chosen &= _top(metric * chosen, min(self.keep, priors))
        best_metric = (metric * chosen).amax(1, keepdim=True)
        best_iou = (iou * chosen).amax(1, keepdim=True)
        scale = (best_metric + self.floor).clamp(min=torch.finfo(metric.dtype).tiny)
        score = (metric / scale * best_iou * chosen).amax(-1)
        return Assignment(torch.where(chosen.any(-1), index, -1), score)


def _overlaps(boxes: Tensor, truth: Tensor, wanted: Tensor) -> Tensor:
    """CIoU of boxes (B, N, 4) and objects (B, G, 4) where `wanted` (B, N, G), not below 0; 0 elsewhere."""
    if counting_waits(boxes.device):
        every = overlap(truth[:, None], boxes[:, :, None], "ciou", eps=1e-7).clamp_(min=0)
        return torch.where(wanted, every, 0.0)
    image, prior, target = wanted.nonzero(as_tuple=True)
    result = boxes.new_zeros(wanted.shape)
    result[image, prior, target] = overlap(truth[image, target], boxes[image, prior], "ciou", eps=1e-7).clamp_(min=0)
    return result


def _top(metric: Tensor, count: int) -> Tensor:
    """Marks the `count` priors with the highest metric of each object: (B, N, G) -> bool."""
    order = metric.topk(count, dim=1).indices
    return torch.zeros_like(metric, dtype=torch.bool).scatter_(1, order, True)
