"""From pictures to boxes, and what the boxes are worth. What a prediction is told stands here, free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from nas.options import Count, CountOrNone, ImageSize, Name, Resize, Share, check_object


@dataclass(frozen=True)
class PredictOptions:
    """How a picture becomes detections.

    resize: `stretch` to the square input (as the official models are trained and scored), `letterbox` (keep the aspect, pad
    with grey 114), `rectangle` (pad no more than the batch needs), or None: as the model was trained. `max_detections` a
    picture; `agnostic` lets boxes of different classes compete.
    """

    score_threshold: Share = 0.3
    iou_threshold: Share = 0.7
    max_detections: Count = 300
    max_candidates: Count = 30_000
    agnostic: bool = False
    resize: Resize | None = None
    batch: Count = 1

    def __post_init__(self) -> None:
        check_object(self)


@dataclass(frozen=True, kw_only=True)
class PredictCommand(PredictOptions):
    """What `python -m nas.predict` is told.

    model: checkpoint, exported file (.onnx, .xml, .engine), name or spec; source: file, folder, glob or video.

    annotations: a COCO file whose image and category ids the results take, matched by name; rows: lines of the table.
    """

    model: Name
    source: Name
    image_size: ImageSize | None = None
    device: Name | None = None
    pictures: bool = True
    results: bool = True
    annotations: Name | None = None
    rows: CountOrNone = 40
