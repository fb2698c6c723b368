"""The whole detection loss: assignment, class, box and distribution terms with their normalisers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from nas.loss import LossOptions
from nas.loss.assignment import Assigner, Assignment, Targets, make_assigner
from nas.loss.distributed import mean_over_processes, world_size
from nas.loss.terms import (
    OverlapKind,
    binary_cross_entropy,
    distribution_focal_loss,
    overlap,
    places,
    quality_focal_loss,
    side_distances,
)
from nas.models.base import RawPrediction, at_least_float32
from nas.options import check_object


@dataclass
class DetectionLoss:
    """Weighted terms of a raw prediction against targets, always in float32 (or float64).

    Calling it gives {"class", "box", "dfl"} (and "aux_*" for an auxiliary branch) as scalars whose sum is the loss.
    Normalisers are averaged over processes and at least 1 over the whole optimiser step, so that DDP's mean of gradients
    equals one process with the whole batch (the official code has that floor of 1 in every process).
    `micro_batches` are those of a step in one process; the caller takes the mean over them.
    `image_size` scales the L1 term of detectors that predict distances directly (one bin). alone: this process computes
    while the others wait, so nothing is shared with them. class_weights (C,): of the class terms of positive priors, by the
    class that they learn.
    """

    options: LossOptions = field(default_factory=LossOptions)
    image_size: int = 640
    micro_batches: int = 1
    alone: bool = False
    class_weights: Tensor | None = None

    def __post_init__(self) -> None:
        check_object(self.options, "trainer.loss")
        self.main_assigner = self.auxiliary_assigner = make_assigner(self.options.assigner)
        if self.options.end_to_end:
            self.main_assigner = self.auxiliary_assigner.one_to_one()

    @property
    def parts(self) -> int:
        """Into how many pieces, of which the step takes the mean, its batch is cut."""
        return self.micro_batches * (1 if self.alone else world_size())

    def __call__(self, raw: RawPrediction, targets: Targets, progress: float = 0.0) -> dict[str, Tensor]:
        """Terms for one micro-batch; `progress` in [0, 1] is the fraction of the training that is done."""
        options = self.options
        whole = raw.class_logits.shape[0] * self.parts if options.scale_by_batch else 1
        with torch.autocast(raw.class_logits.device.type, enabled=False):
            main, many = 1.0, options.auxiliary_weight
            if options.end_to_end:
                many = 0.8 + (0.1 - 0.8) * progress
                main = 1 - many
            losses = self._branch(raw, targets, self.main_assigner, main * whole)
            if raw.auxiliary is not None:
                extra = self._branch(raw.auxiliary, targets, self.auxiliary_assigner, many * whole)
                losses |= {f"aux_{name}": value for name, value in extra.items()}
        return losses

    def assign(self, raw: RawPrediction, targets: Targets, assigner: Assigner | None = None) -> Assignment:
        """Which prior learns which object, from detached scores and boxes."""
        scores = at_least_float32(raw.class_logits.detach()).sigmoid()
        boxes = at_least_float32(raw.boxes.detach())
        points, strides = raw.points.to(boxes.dtype), raw.strides.to(boxes.dtype)
        return (assigner or self.main_assigner)(scores, boxes, points, strides, targets)

    def _branch(self, raw: RawPrediction, targets: Targets, assigner: Assigner, scale: float) -> dict[str, Tensor]:
        options = self.options
        assignment = self.assign(raw, targets, assigner)
        positive, matched = assignment.positive, assignment.matched
        chosen = places(positive)
        image, prior = chosen.indices
        objects = targets.labels.shape[1]
        labels = torch.where(positive, targets.labels.gather(1, matched.clamp(min=0)), -1) if objects else matched
        quality = chosen.at(assignment.quality)
        logits = at_least_float32(raw.class_logits)
        if options.box_weighting == "score":
            weights = chosen.kept(logits.detach()[image, prior].amax(-1).sigmoid())
        else:
            weights = quality
        counts = torch.stack([positive.sum().to(weights.dtype), weights.sum(), quality.sum()])
        shared = counts.detach() if self.alone else mean_over_processes(counts)
        positives, weight_sum, quality_sum = shared.clamp(min=1 / self.parts)
        if options.classification == "qfl":
            class_loss = quality_focal_loss(logits, labels, assignment.quality, self._weights(logits)) / positives
        else:
            class_loss = binary_cross_entropy(logits, labels, assignment.quality, self._weights(logits)) / quality_sum
        boxes = at_least_float32(raw.boxes)
        if objects and len(image):
            truth = targets.boxes[image, chosen.at(matched)]
            predicted = chosen.kept(boxes[image, prior], truth)
            kind: OverlapKind = options.overlap  # type: ignore[assignment]
            overlaps = overlap(predicted, truth, kind, eps=1e-7 if kind == "ciou" else 1e-6)
            box_loss = ((1 - overlaps) * weights).sum() / weight_sum
            side_loss = (self._sides(raw, image, prior, truth) * weights).sum() / weight_sum
        else:
            box_loss, side_loss = boxes.sum() * 0.0, at_least_float32(raw.box_logits).sum() * 0.0
        return {
            "class": class_loss * (options.class_weight * scale),
            "box": box_loss * (options.box_weight * scale),
            "dfl": side_loss * (options.dfl_weight * scale),
        }

    def _weights(self, like: Tensor) -> Tensor | None:
        return None if self.class_weights is None else self.class_weights.to(like)

    def _sides(self, raw: RawPrediction, image: Tensor, prior: Tensor, truth: Tensor) -> Tensor:
        """Mean over the four sides: DFL of the distance bins, or L1 of direct distances relative to the image."""
        stride = raw.strides[prior, None].float()
        distances = side_distances(raw.points[prior].float(), truth)
        logits = at_least_float32(raw.box_logits[image, prior])
        if logits.shape[-1] == 1:
            return (logits.squeeze(-1) * stride - distances).abs().mean(-1) / self.image_size
        largest = logits.shape[-1] - 1 - self.options.distance_margin
        return distribution_focal_loss(logits, (distances / stride).clamp(0, largest)).mean(-1)
