"""Schema of `python -m nas.evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Le
from omegaconf import MISSING

from nas.config.data import DataConfig
from nas.options import Count, CountOrNone, ImageSize, Name, OneOf, Share


@dataclass
class EvaluateConfig:
    """model: checkpoint, exported file (.onnx, .xml, .engine), name or spec; split: train, val or test of the data."""

    model: Name = MISSING
    data: DataConfig = field(default_factory=DataConfig)
    split: Annotated[str, OneOf("train", "val", "test")] = "val"
    image_size: ImageSize | None = None
    batch_size: Count = 8
    workers: Annotated[int, Ge(0), Le(1024)] = 0
    device: Name | None = None
    score_threshold: Share = 0.001
    iou_threshold: Share = 0.7
    max_detections: Count = 300
    max_candidates: Count = 3000
    time: bool = True
    plots: bool = True
    results: bool = True
    rows: CountOrNone = 20
    progress: bool = True
