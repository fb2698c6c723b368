"""Schema of `python -m nas.evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from nas.config.data import DataConfig


@dataclass
class EvaluateConfig:
    """model: checkpoint, exported file (.onnx, .xml, .engine), name or spec; split: train, val or test of the data."""

    model: str = MISSING
    data: DataConfig = field(default_factory=DataConfig)
    split: str = "val"
    image_size: int | None = None
    batch_size: int = 8
    workers: int = 0
    device: str | None = None
    score_threshold: float = 0.001
    iou_threshold: float = 0.7
    max_detections: int = 300
    max_candidates: int = 3000
    time: bool = True
    plots: bool = True
    results: bool = True
    rows: int = 20
    progress: bool = True
