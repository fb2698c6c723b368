"""What a detector is taught: targets, losses, distillation. The options stand here, free of torch, for the commands' --help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Lt

from nas.options import NotNegative, OneOf, Share

#: Assigners by name: class in nas.loss.assignment and published constants. `align_ota_report` follows equation 2 of the
#: DAMO-YOLO report, `tal_report` the normalisation of the TOOD paper.
ASSIGNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "align_ota": ("OTA", {}),
    "align_ota_report": ("OTA", {"power": 1.0, "iou_cost": "linear"}),
    "sim_ota": ("OTA", {"soft": False, "power": 0.0}),  # of YOLOX (arXiv 2107.08430), without objectness
    "atss": ("ATSS", {}),
    "tal": ("TAL", {}),
    "tal_report": ("TAL", {"floor": 0.0}),
}
#: How a student may learn from its teacher's neck (nas.loss.distill).
DISTILLATIONS = ("cwd", "mgd", "mimic")


@dataclass
class LossOptions:
    """Which loss; the defaults are DAMO-YOLO's, `task_aligned()` gives the YOLOv8/9/11 recipe.

    classification: "qfl" (normalised by the positives) or "bce" (normalised by the summed quality, as all terms then);
    box_weighting: positives weigh their highest class probability ("score", DAMO-YOLO) or quality ("quality", TAL);
    distance_margin keeps a distance target below the last bin; auxiliary_weight multiplies a training-only branch;
    end_to_end: the main branch learns one prior per object and the auxiliary many, by one metric; as in YOLO26 their
    weights are exchanged over the training: the many-branch falls from 0.8 to 0.1; scale_by_batch: multiply the total by
    the batch of the whole optimiser step, over all micro-batches and processes; class_balance: a positive prior's class
    term weighs (boxes of its class)^-class_balance, with the mean 1 over all boxes: 0 off, 1 by inverse frequency.
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
    class_balance: Share = 0.0


def task_aligned(**changes: object) -> LossOptions:
    """Loss of YOLOv8, YOLOv9 and YOLO11: TAL, cross-entropy, CIoU and DFL with gains 0.5, 7.5 and 1.5."""
    options: dict = dict(
        assigner="tal", classification="bce", overlap="ciou", box_weighting="quality", scale_by_batch=True
    ) | dict(class_weight=0.5, box_weight=7.5, dfl_weight=1.5, distance_margin=0.01)
    return LossOptions(**options | changes)
