"""Which prior learns which object: AlignedOTA (default), SimOTA, ATSS and TAL, all on padded batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from nas.errors import UserError
from nas.loss import ASSIGNERS
from nas.loss.terms import counting_waits, overlap, pairwise_iou


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


class Assigner(ABC):
    """A way to choose; a family is a frozen, slotted dataclass that derives from it."""

    __slots__ = ()

    @torch.no_grad()
    def __call__(
        self, probabilities: Tensor, boxes: Tensor, points: Tensor, strides: Tensor, targets: Targets
    ) -> Assignment:
        """Assign priors (N, 2) with scores (B, N, C) after the sigmoid and decoded boxes (B, N, 4) to `targets`."""
        if targets.boxes.shape[1] and boxes.shape[1]:
            return self.assign(probabilities, boxes, points, strides, targets)
        shape, device = boxes.shape[:2], boxes.device
        return Assignment(torch.full(shape, -1, dtype=torch.long, device=device), torch.zeros(shape, device=device))

    def one_to_one(self) -> Assigner:
        """The same metric with one prior per object, for a branch without NMS; UserError where there is none."""
        raise UserError(f"assigner {type(self).__name__} has no one-to-one form: take align_ota, sim_ota or tal")

    @abstractmethod
    def assign(
        self, probabilities: Tensor, boxes: Tensor, points: Tensor, strides: Tensor, targets: Targets
    ) -> Assignment:
        """The assignment of a batch that has priors and objects."""


def _with_overlap(positive: Tensor, index: Tensor, iou: Tensor) -> Assignment:
    """Positive priors learn the object at `index` (B, N), with their IoU (B, N, G) with it as quality."""
    quality = iou.gather(2, index[..., None]).squeeze(-1)
    return Assignment(torch.where(positive, index, -1), torch.where(positive, quality, 0.0))


def class_scores(values: Tensor, labels: Tensor) -> Tensor:
    """Column of each object's class: values (B, N, C), labels (B, G) -> (B, N, G)."""
    return values.gather(2, labels[:, None, :].expand(-1, values.shape[1], -1))


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether each point lies strictly inside each box: (N, 2), (B, G, 4) -> (B, N, G)."""
    x, y = points[None, :, 0, None], points[None, :, 1, None]
    x1, y1, x2, y2 = boxes[:, None].unbind(-1)
    return (x - x1 > 0) & (y - y1 > 0) & (x2 - x > 0) & (y2 - y > 0)


PENALTY = 1e8


@dataclass(frozen=True, slots=True)
class OTA(Assigner):
    """Dynamic-k assigner; the defaults are AlignedOTA as the official code computes it.

    soft: the class cost compares with the IoU instead of 1 (the alignment); power: exponent of the focal factor
        |target - p| (2 in the code, 1 in the report's equation 2, 0 in SimOTA).
    iou_cost: "log" is -ln IoU (the code), "linear" is -IoU (the report).
    radius: half side in strides of the centre square; candidates: IoUs that are summed into k; most: the largest k.
    """

    soft: bool = True
    power: float = 2.0
    iou_cost: Literal["log", "linear"] = "log"
    class_weight: float = 1.0
    iou_weight: float = 3.0
    radius: float = 2.5
    candidates: int = 10
    most: int | None = None

    def one_to_one(self) -> OTA:
        return replace(self, most=1)

    def assign(
        self, probabilities: Tensor, boxes: Tensor, points: Tensor, strides: Tensor, targets: Targets
    ) -> Assignment:
        in_box = inside(points, targets.boxes)
        centre = (targets.boxes[..., :2] + targets.boxes[..., 2:]) / 2
        near = (points[None, :, None] - centre[:, None]).abs().amax(-1) < self.radius * strides[None, :, None]
        real = targets.mask[:, None]
        valid = ((in_box | near) & real).any(-1, keepdim=True) & real
        iou = pairwise_iou(boxes, targets.boxes).mul_(valid)
        cost = self._cost(probabilities, iou, targets.labels)
        cost.add_((~(in_box & near)).to(cost.dtype), alpha=PENALTY).masked_fill_(~valid, torch.inf)
        return self._select(cost, iou, valid)

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

    def _select(self, cost: Tensor, iou: Tensor, valid: Tensor) -> Assignment:
        """The k cheapest priors of each object; a prior wanted by several goes to the cheapest of all objects."""
        candidates = min(self.candidates, cost.shape[1])
        count = iou.topk(candidates, dim=1).values.sum(1).int().clamp_(1, self.most)
        order = cost.topk(candidates, dim=1, largest=False).indices
        wanted = torch.arange(candidates, device=cost.device)[None, :, None] < count[:, None]
        chosen = torch.zeros_like(valid).scatter_(1, order, wanted) & valid
        claims = chosen.sum(-1)
        index = chosen.int().argmax(-1)
        return _with_overlap(claims > 0, torch.where(claims > 1, cost.argmin(-1), index), iou)


def _focal(value: Tensor, factor: Tensor, power: float) -> Tensor:
    if power == 0:
        return value
    return value * (factor.square() if power == 2 else factor.pow(power))


@dataclass(frozen=True, slots=True)
class ATSS(Assigner):
    """The `topk` nearest priors of every level whose anchor overlaps at least the mean plus deviation of them all.

    Every prior carries a square anchor of side scale * stride; the quality is the IoU of the decoded box.
    """

    topk: int = 9
    scale: float = 8.0

    def assign(
        self, probabilities: Tensor, boxes: Tensor, points: Tensor, strides: Tensor, targets: Targets
    ) -> Assignment:
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
        return _with_overlap(chosen.any(-1), index, pairwise_iou(boxes, targets.boxes))


@dataclass(frozen=True, slots=True)
class TAL(Assigner):
    """The `topk` priors with the highest score^alpha * CIoU^beta inside each object.

    keep: after conflicts only the best `keep` priors of an object stay (1, of seven, is YOLO26's one-to-one branch).
    floor: added to an object's best metric before the others are divided by it. The published programs add 1e-9, which
    silences an object whose best prior is below it (CIoU 0.03 at a score of 0.001): its soft labels and box weights
    vanish, so it is never learnt. The paper has no floor: the best prior's label is its CIoU, however small.
    """

    topk: int = 10
    alpha: float = 0.5
    beta: float = 6.0
    keep: int | None = None
    floor: float = 1e-9

    def one_to_one(self) -> TAL:
        return replace(self, topk=7, keep=1)

    def assign(
        self, probabilities: Tensor, boxes: Tensor, points: Tensor, strides: Tensor, targets: Targets
    ) -> Assignment:
        candidate = inside(points, targets.boxes) & targets.mask[:, None]
        iou = _overlaps(boxes, targets.boxes, candidate)
        own = class_scores(probabilities, targets.labels)
        metric = torch.where(candidate, own.pow(self.alpha) * iou.pow(self.beta), 0.0)
        chosen = _top(metric, min(self.topk, boxes.shape[1])) & candidate
        claims = chosen.sum(-1)
        index = torch.where(claims > 1, iou.argmax(-1), chosen.int().argmax(-1))
        chosen = torch.zeros_like(chosen).scatter_(2, index[..., None], (claims > 0)[..., None])
        if self.keep is not None:
            chosen &= _top(metric * chosen, min(self.keep, boxes.shape[1]))
        best_metric = (metric * chosen).amax(1, keepdim=True)
        best_iou = (iou * chosen).amax(1, keepdim=True)
        scale = (best_metric + self.floor).clamp(min=torch.finfo(metric.dtype).tiny)
        score = (metric / scale * best_iou * chosen).amax(-1)
        return Assignment(torch.where(chosen.any(-1), index, -1), score)


def make_assigner(name: str) -> Assigner:
    """The assigner of that name (`nas.loss.ASSIGNERS`)."""
    kind, constants = ASSIGNERS[name]
    kinds: dict[str, type[Assigner]] = {"OTA": OTA, "ATSS": ATSS, "TAL": TAL}
    return kinds[kind](**constants)


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
