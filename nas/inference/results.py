"""Predictions as COCO results: the list that pycocotools' `loadRes` reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nas.data.formats.coco import coco_classes, coco_document
from nas.data.formats.schema import IMAGE, read_entries
from nas.errors import UserError
from nas.inference.predictor import Prediction


class ResultIds:
    """Image and category ids of results: those of an annotation file, matched by name, or our own.

    Without annotations an image's id is its path in the source without ending (a number where it is one, as in COCO), a
    video frame's its whole name, and a category's its label, from 0.
    """

    def __init__(self, classes: tuple[str, ...], annotations: str | Path | None = None) -> None:
        self.categories: dict[int, Any] = dict(enumerate(range(len(classes))))
        self.images: dict[str, Any] | None = None
        if annotations is None:
            return
        document = coco_document(annotations)
        ids = {name: number for number, name in coco_classes(document, annotations).items()}
        pictures, broken = read_entries(IMAGE, document["images"], "images", annotations)
        if broken:
            raise UserError(broken[0].where)
        self.images = {image.file_name: image.id for _, image in pictures}
        unknown = [name for name in classes if name not in ids]
        if unknown:
            raise UserError(f"{annotations} has no category {unknown[0]!r}; it has {', '.join(ids)}")
        self.categories = {label: ids[name] for label, name in enumerate(classes)}
        self._bare: dict[str, list[str]] = {}
        for listed in self.images:
            self._bare.setdefault(Path(listed).name, []).append(listed)

    def image(self, name: str) -> Any:
        """The id of a picture; None if the annotation file does not list it, UserError if it lists several such names."""
        if self.images is None:
            if re.search(r"#\d{6,}$", name):  # a frame, as nas.inference.frames names it
                return name
            stem = Path(name).with_suffix("").as_posix()
            return int(stem) if stem.isdecimal() else stem
        if name in self.images:
            return self.images[name]
        listed = self._bare.get(Path(name).name, [])
        if len(listed) > 1:
            raise UserError(
                f"{name} may be {' or '.join(listed[:2])} of the annotations: predict from their common folder"
            )
        return self.images[listed[0]] if listed else None


def coco_results(prediction: Prediction, ids: ResultIds) -> list[dict[str, Any]]:
    """The detections of one picture as COCO result rows, bbox = [x, y, width, height] in its pixels."""
    image = ids.image(prediction.name)
    if image is None:
        return []
    rows = []
    for box, score, label in zip(
        prediction.boxes.tolist(), prediction.scores.tolist(), prediction.labels.tolist(), strict=True
    ):
        x1, y1, x2, y2 = box
        rows.append(
            {
                "image_id": image,
                "category_id": ids.categories[label],
                "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(score, 6),
                "file_name": prediction.name,
                "category_name": prediction.classes[label],
            }
        )
    return rows
