"""The whole detection loss: assignment, class, box and distribution terms with their normalisers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from nas.loss.assignment import ATSS, OTA, TAL, Assigner, Assignment, Targets, sim_ota
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
from nas.options import NotNegative, OneOf, check_object

#: Assigners by name, with their published constants. `align_ota_report` follows equation 2 of the DAMO-YOLO report,
#: `tal_report` the normalisation of the TOOD paper.
ASSIGNERS: dict[str, Callable[[], Assigner]] = {
    "align_ota": OTA,
    "align_ota_report": partial(OTA, power=1.0, iou_cost="linear"),
    "sim_ota": sim_ota,
    "atss": ATSS,
    "tal": TAL,
    "tal_report": partial(TAL, floor=0.0),
}


@dataclass
class LossOptions:
    """Which loss; the defaults are DAMO-YOLO's, `task_aligned()` gives the YOLOv8/9/11 recipe.

    classification: "qfl" (normalised by the positives) or "bce" (normalised by the summed quality, as all terms then);
    box_weighting: positives weigh their highest class probability ("score", DAMO-YOLO) or quality ("quality", TAL);
    distance_margin keeps a distance target below the last bin; auxiliary_weight multiplies a training-only branch;
    end_to_end: the main branch learns one prior per object and the auxiliary many (YOLO26), their weights exchanged
    over the training: the many-branch falls from 0.8 to 0.1; scale_by_batch: multiply the total by the batch of the whole
    optimiser step, over all micro-batches and processes.
    """

    assigner: Annotated[str, OneOf(*ASSIGNERS)] = "align_ota"
    classification: Annotated[str, OneOf("qfl", "bce")] = "qfl"
    overlap: Annotated[str, OneOf("iou", "giou", "ciou")] = "giou"
    box_weighting: Annotated[str, OneOf("score", "quality")] = "score"
    class_weight: NotNegative = 1.0
    box_weight: NotNegative = 2.0
    dfl_weight: NotNegative = 0.25
    distance_margin: Annotated[float, Ge(0), Lt(1)] = 0.1
    auxiliary_weight: NotNegative = 0.25
    end_to_end: bool = False
    scale_by_batch: bool = False


def task_aligned(**changes: object) -> LossOptions:
    """Loss of YOLOv8, YOLOv9 and YOLO11: TAL, cross-entropy, CIoU and DFL with gains 0.5, 7.5 and 1.5."""
    options: dict = dict(
        assigner="tal", classification="bce", overlap="ciou", box_weighting="quality", scale_by_batch=True
    ) | dict(class_weight=0.5, box_weight=7.5, dfl_weight=1.5, distance_margin=0.01)
    return LossOptions(**options | changes)


@dataclass
class DetectionLoss:
    """Weighted terms of a raw prediction against targets, always in float32 (or float64).

    Calling it gives {"class", "box", "dfl"} (and "aux_*" for an auxiliary branch) as scalars whose sum is the loss.
    Normalisers are averaged over processes and at least 1 over the whole optimiser step, so that DDP's mean of gradients
    equals one process with the whole batch (the official code has that floor of 1 in every process).
    `micro_batches` are those of a step in one process; the caller takes the mean over them.
    `image_size` scales the L1 term of detectors that predict distances directly (one bin).
    """

    options: LossOptions = field(default_factory=LossOptions)
    image_size: int = 640
    micro_batches: int = 1

    def __post_init__(self) -> None:
        check_object(self.options, "trainer.loss")
        self.main_assigner = self.auxiliary_assigner = ASSIGNERS[self.options.assigner]()
        if self.options.end_to_end:
            self.main_assigner = TAL(topk=7, keep=1)

    @property
    def parts(self) -> int:
        """Into how many pieces, of which the step takes the mean, its batch is cut."""
        return self.micro_batches * world_size()

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
        positives, weight_sum, quality_sum = mean_over_processes(counts).clamp(min=1 / self.parts)
        if options.classification == "qfl":
            class_loss = quality_focal_loss(logits, labels, assignment.quality) / positives
        else:
            class_loss = binary_cross_entropy(logits, labels, assignment.quality) / quality_sum
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

    def _sides(self, raw: RawPrediction, image: Tensor, prior: Tensor, truth: Tensor) -> Tensor:
        """Mean over the four sides: DFL of the distance bins, or L1 of direct distances relative to the image."""
        stride = raw.strides[prior, None].float()
        distances = side_distances(raw.points[prior].float(), truth)
        logits = at_least_float32(raw.box_logits[image, prior])
        if logits.shape[-1] == 1:
            return (logits.squeeze(-1) * stride - distances).abs().mean(-1) / self.image_size
        largest = logits.shape[-1] - 1 - self.options.distance_margin
        return distribution_focal_loss(logits, (distances / stride).clamp(0, largest)).mean(-1)
