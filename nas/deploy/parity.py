"""Does an exported file find what torch finds? Raw outputs where they must be equal, detections everywhere."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nas.inference.execution import Outputs
from nas.inference.postprocess import Detections, postprocess
from nas.loss.terms import pairwise_iou


@dataclass(frozen=True)
class Tolerance:
    """What counts as agreement: raw differences (None: not compared), IoU and score of a matched detection, and the
    share of torch's detections that must be matched."""

    score: float | None
    box: float | None
    iou: float
    detection_score: float
    share: float


#: Float32 must be equal but for rounding; half precision nearly so; INT8 must find the same things. bf16 has three bits
#: less than fp16.
TOLERANCES = {
    "fp32": Tolerance(1e-4, 1e-2, 0.99, 1e-3, 0.995),
    "fp16": Tolerance(None, None, 0.9, 0.05, 0.97),
    "bf16": Tolerance(None, None, 0.8, 0.1, 0.95),
    "int8": Tolerance(None, None, 0.5, 0.3, 0.9),
}


#: How many times torch's own rounding a file may be off: other kernels add in another order and round elsewhere, and 3.3
#: times was met on an Intel Xeon; a file of another network is off by thousands.
ROUNDINGS = 10


@dataclass(frozen=True)
class Agreement:
    """How an exported file compares with torch over some images; differences in score and in pixels.

    `detections` is how many torch found, `matched` the share of them that the file found too.
    """

    images: int
    detections: int
    matched: float
    score_difference: float
    box_difference: float
    problem: str = ""


def verify(
    reference: Callable[[Tensor], Outputs],
    exported: Callable[[Tensor], Outputs],
    batches: Sequence[np.ndarray],
    tolerance: Tolerance,
    score_threshold: float = 0.25,
    iou_threshold: float = 0.7,
    end_to_end: bool = False,
    exported_rows: bool = False,
    max_detections: int = 300,
    lowest: float = 0.0,
) -> Agreement:
    """Compare two networks on batches (B, 3, S, S); `exported_rows` says that the second returns final rows.

    Where torch scores nothing above the threshold, as before training, its hundred best pairs are compared instead, but
    never any below `lowest` (the threshold that is built into a file).
    """
    scores_apart = boxes_apart = 0.0
    total = matched = images = 0
    for batch in batches:
        with torch.inference_mode():
            ours = [torch.as_tensor(value).float().cpu() for value in reference(torch.from_numpy(batch))[:2]]
            theirs = [torch.as_tensor(value).float().cpu() for value in exported(torch.from_numpy(batch))[:2]]
        images += len(batch)
        if not all(torch.isfinite(value).all() for value in theirs):
            return Agreement(
                images, total, 0.0, float("inf"), float("inf"), "the file gives values that are not finite"
            )
        if not end_to_end and not exported_rows:
            if ours[0].shape != theirs[0].shape or ours[1].shape != theirs[1].shape:
                return Agreement(images, 0, 0.0, 0.0, 0.0, f"the file gives shapes {[tuple(v.shape) for v in theirs]}")
            scores_apart = max(scores_apart, float((ours[0] - theirs[0]).abs().max()))
            if tolerance.box is not None:
                boxes_apart = max(boxes_apart, float((ours[1] - theirs[1]).abs().max()))
        threshold = max(_threshold(ours[0], score_threshold), lowest)
        lower = max(threshold - tolerance.detection_score, 0.0)
        found = postprocess(
            ours[0], ours[1], threshold, iou_threshold, max_detections=max_detections, nms=not end_to_end
        )
        rows = end_to_end or exported_rows
        other = postprocess(theirs[0], theirs[1], lower, iou_threshold, max_detections=max_detections, nms=not rows)
        for one, two in zip(found, other, strict=True):
            hits, score, box = match(one, two, tolerance)
            total, matched = total + len(one.scores), matched + hits
            if tolerance.score is None or exported_rows or end_to_end:
                scores_apart, boxes_apart = max(scores_apart, score), max(boxes_apart, box)
    share = matched / total if total else 1.0
    problem = ""
    # Rows are matched within their own tolerances; only raw outputs are compared number by number.
    raw = not end_to_end and not exported_rows
    if raw and tolerance.score is not None and scores_apart > tolerance.score:
        problem = f"scores differ by {scores_apart:.2g}, more than {tolerance.score:g}"
    elif raw and tolerance.box is not None and boxes_apart > tolerance.box:
        problem = f"boxes differ by {boxes_apart:.2g} px, more than {tolerance.box:g}"
    elif share < tolerance.share and (tolerance.score is None or not raw):
        # Where raw outputs are equal, NMS alone breaks ties otherwise, as among the equal scores of a fresh network.
        problem = (
            f"only {100 * share:.1f} % of {total} detections are found again, fewer than {100 * tolerance.share:g} %"
        )
    return Agreement(images, total, share, scores_apart, boxes_apart, problem)


def rounding(network: nn.Module, batches: Sequence[np.ndarray]) -> tuple[float, float]:
    """How far scores and boxes (pixels) of a float32 network are from those of the same network in float64."""
    exact = copy.deepcopy(network).double()
    score = box = 0.0
    for batch in batches:
        images = torch.from_numpy(batch)
        with torch.inference_mode():
            near, true = network(images)[:2], exact(images.double())[:2]
        score = max(score, float((near[0] - true[0]).abs().max()))
        box = max(box, float((near[1] - true[1]).abs().max()))
    return score, box


def match(one: Detections, two: Detections, tolerance: Tolerance) -> tuple[int, float, float]:
    """How many detections of `one` have a partner in `two` (same label, near box and score), and how far those are."""
    if not len(one.scores) or not len(two.scores):
        return 0, 0.0, 0.0
    overlap = pairwise_iou(one.boxes, two.boxes)
    score = (one.scores[:, None] - two.scores).abs()
    fits = (one.labels[:, None] == two.labels) & (score <= tolerance.detection_score)
    # A box without area overlaps nothing, not even itself.
    same = (one.boxes[:, None] - two.boxes).abs().amax(-1) < 0.5
    fits &= (overlap >= tolerance.iou) | same
    hit = fits.any(1)
    if not hit.any():
        return 0, 0.0, 0.0
    best = torch.where(fits, overlap + same - score, -1.0).argmax(1)[hit]
    apart = (one.boxes[hit] - two.boxes[best]).abs().max()
    return int(hit.sum()), float(score[hit, best].max()), float(apart)


def _threshold(scores: Tensor, wanted: float) -> float:
    """The wanted score threshold, or a lower one that a hundred pairs an image pass."""
    if float(scores.max()) > wanted:
        return wanted
    count = min(100 * len(scores), scores.numel())
    return max(float(scores.flatten().topk(count).values[-1]) - 1e-9, 0.0)
