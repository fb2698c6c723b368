"""Schema of `python -m nas.export`."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class ExportConfig:
    """model: a checkpoint, or a name or spec (random weights); output: the file, by default beside the report.

    The other fields are those of nas.deploy.pipeline.ExportSettings.
    """

    model: str = MISSING
    output: str | None = None
    format: str = "onnx"
    precision: str = "fp32"
    image_size: int | None = None
    opset: int = 18
    batch: int | None = None
    images: str | None = None
    check_images: int = 8
    calibration_images: int = 128
    calibration: str = "minmax"
    keep_float: list[str] = field(default_factory=list)
    seed: int = 0
    score_threshold: float = 0.05
    iou_threshold: float = 0.7
    max_detections: int = 300
