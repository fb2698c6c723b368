"""Schema of `python -m nas.predict`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass
class PredictConfig:
    """model: checkpoint, exported file (.onnx, .xml, .engine), name or spec; source: file, folder, glob or video.

    annotations: a COCO file whose image and category ids the results take, matched by name; rows: lines of the table.
    """

    model: str = MISSING
    source: str = MISSING
    image_size: int | None = None
    score_threshold: float = 0.3
    iou_threshold: float = 0.7
    max_detections: int = 300
    max_candidates: int = 30_000
    agnostic: bool = False
    resize: str = "stretch"
    batch: int = 1
    device: str | None = None
    pictures: bool = True
    results: bool = True
    annotations: str | None = None
    rows: int = 40
