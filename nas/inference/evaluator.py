"""Runs any detector over annotated images: the same numbers for a torch module and for the file exported from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.data.dataset import DetectionData
from nas.data.loader import Batch, Loader, build_loader
from nas.data.resize import Fit
from nas.errors import UserError
from nas.inference.execution import Outputs, inference, milliseconds, now, resize_for, told_when_full
from nas.inference.postprocess import Detections, postprocess
from nas.inference.scoring import Evaluation, Found, score_detections
from nas.memory import kept_memory
from nas.models.base import numbered
from nas.options import Count, Resize, Share, Workers, check_keywords

Model = Callable[[Tensor], Outputs]


def evaluate(
    model: Model,
    data: DetectionData | Loader,
    image_size: int = 640,
    batch_size: Count = 8,
    workers: Workers = 0,
    score_threshold: Share = 0.001,
    iou_threshold: Share = 0.7,
    max_detections: Count = 300,
    max_candidates: Count = 3000,
    classes: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    resize: Resize | None = None,
) -> Evaluation:
    """AP and the rest of a model over a split (or a loader of it with train=False).

    `model` maps images (B, 3, H, W), float RGB 0..255, to scores (B, N, C) and boxes (B, N, 4). The official models
    were scored with score_threshold 0.05 and max_candidates 30000. `classes`: names of the model's outputs (default:
    its own, else the data's), matched to the data by name. `progress(done, total)` counts batches. `resize`: how pictures
    become inputs (`resize_for`), None: as the model says. UserError if the classes do not fit.
    """
    loader = data
    if not isinstance(loader, Loader):
        chosen = resize_for(model, resize)
        loader = build_loader(loader, batch_size, image_size, 0, workers, train=False, resize=chosen)
    found, times = detect(
        model, loader, score_threshold, iou_threshold, max_detections, max_candidates, classes, progress
    )
    return score_detections(loader.data, [found[i] for i in range(len(loader.data))], milliseconds=times)


@told_when_full("batch_size, image_size or max_candidates")
@kept_memory()
def detect(
    model: Model,
    loader: Loader,
    score_threshold: Share = 0.001,
    iou_threshold: Share = 0.7,
    max_detections: Count = 300,
    max_candidates: Count = 3000,
    classes: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    seen: Callable[[Batch], None] | None = None,
) -> tuple[dict[int, Found], dict[str, float]]:
    """Detections by record index, in each image's pixels and the data's labels; and milliseconds an image of the model
    and of the post-processing. `seen` is called with every batch after the model ran on it."""
    limits = {"score_threshold": score_threshold, "iou_threshold": iou_threshold}
    limits |= {"max_detections": max_detections, "max_candidates": max_candidates}
    check_keywords(detect, limits, "")
    lookup = class_lookup(model, loader.data, classes)
    nms = not getattr(model, "end_to_end", False)
    found: dict[int, Found] = {}
    seconds = {"model": 0.0, "postprocess": 0.0}
    with inference(model) as device:
        for step, batch in enumerate(loader):
            images = batch.images.to(device).float()
            started = now(device)
            scores, boxes = (torch.as_tensor(output) for output in model(images)[:2])
            ran = now(device)
            if scores.shape[-1] != len(lookup):
                raise UserError(f"the model gives {scores.shape[-1]} classes, but {len(lookup)} names are known for it")
            detections = postprocess(
                scores.float(), boxes.float(), score_threshold, iou_threshold, max_detections, max_candidates, nms=nms
            )
            seconds["model"] += ran - started
            seconds["postprocess"] += now(device) - ran
            for index, fit, result in zip(batch.indices, batch.fits, detections, strict=True):
                found[index] = _in_original(result, fit, lookup)
            if seen is not None:
                seen(batch)
            if progress is not None:
                progress(step + 1, len(loader))
    return found, {name: 1000 * value / max(len(found), 1) for name, value in seconds.items()}


def class_lookup(model: Model, data: DetectionData, classes: Sequence[str] | None = None) -> NDArray[np.int64]:
    """The data's label of each model output (C,), -1 for a class that the data does not have.

    UserError if the data has a class that the model cannot find.
    """
    names = tuple(classes or getattr(model, "classes", None) or data.classes)
    missing = [name for name in data.classes if name not in names]
    if missing and len(names) == data.num_classes and numbered(names):
        return np.arange(len(names))
    if missing:
        raise UserError(
            f"{data.name} has the class {missing[0]!r}, the model has {', '.join(names[:10])}"
            f"{' ...' if len(names) > 10 else ''}; give data.classes=[...] of the model, or another model"
        )
    labels = {name: label for label, name in enumerate(data.classes)}
    return np.array([labels.get(name, -1) for name in names], np.int64)


def time_model(model: Model, image_size: int, runs: int = 50, seconds: float = 10.0) -> Mapping[str, float]:
    """Milliseconds of the bare model on one image (batch 1, no NMS): median, 10th and 90th percentile of up to `runs`
    calls after a tenth as many to warm up, at most about `seconds` long."""
    image = torch.randint(0, 256, (1, 3, image_size, image_size), generator=torch.Generator().manual_seed(0))
    times = milliseconds(model, image.float(), runs, max(runs // 10, 2), seconds)
    low, middle, high = np.percentile(times, [10, 50, 90])
    return {"median": float(middle), "p10": float(low), "p90": float(high)}


def _in_original(result: Detections, fit: Fit, lookup: NDArray) -> Found:
    labels = lookup[result.labels.numpy()]
    known = labels >= 0
    corners = fit.to_picture(result.boxes.numpy())
    return Found(corners[known], result.scores.numpy()[known], labels[known])
