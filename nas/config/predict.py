"""Schema of `python -m nas.predict`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from omegaconf import MISSING

from nas.options import Count, CountOrNone, ImageSize, Name, OneOf, Share


@dataclass
class PredictConfig:
    """model: checkpoint, exported file (.onnx, .xml, .engine), name or spec; source: file, folder, glob or video.

    annotations: a COCO file whose image and category ids the results take, matched by name; rows: lines of the table.
    """

    model: Name = MISSING
    source: Name = MISSING
    image_size: ImageSize | None = None
    score_threshold: Share = 0.3
    iou_threshold: Share = 0.7
    max_detections: Count = 300
    max_candidates: Count = 30_000
    agnostic: bool = False
    resize: Annotated[str, OneOf("stretch", "letterbox")] = "stretch"
    batch: Count = 1
    device: Name | None = None
    pictures: bool = True
    results: bool = True
    annotations: Name | None = None
    rows: CountOrNone = 40
