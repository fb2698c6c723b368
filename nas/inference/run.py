"""A whole prediction run: a model, a source, and a folder with drawn pictures and COCO results."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from nas.data.coco import coco_classes, coco_document
from nas.data.schema import IMAGE, read_entries
from nas.errors import UserError
from nas.files import write_atomic
from nas.inference import PredictCommand, PredictOptions
from nas.inference.drawing import PictureWriter
from nas.inference.predictor import Prediction
from nas.inference.scoring import result_row

if TYPE_CHECKING:
    from nas.detector import Detector


class ResultIds:
    """Image and category ids of results: those of an annotation file, matched by name, or our own.

    Without annotations an image's id is its path in the source without ending (a number where it is one, as in COCO), a
    video frame's its whole name, and a category's its label, from 0.
    """

    def __init__(self, classes: tuple[str, ...], annotations: str | Path | None = None) -> None:
        self.categories: dict[int, int | str] = dict(enumerate(range(len(classes))))
        self.images: dict[str, int | str] | None = None
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

    def image(self, name: str) -> int | str | None:
        """The id of a picture; None if the annotation file does not list it, UserError if it lists several such names."""
        if self.images is None:
            if re.search(r"#\d{6,}$", name):  # a frame, as nas.inference.pictures names it
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


def named_results(prediction: Prediction, ids: ResultIds) -> list[dict[str, object]]:
    """The detections of one picture as COCO result rows that name their file and class."""
    image = ids.image(prediction.name)
    if image is None:
        return []
    found = zip(prediction.boxes.tolist(), prediction.scores.tolist(), prediction.labels.tolist(), strict=True)
    return [
        result_row(image, ids.categories[label], box, score)
        | {"file_name": prediction.name, "category_name": prediction.classes[label]}
        for box, score, label in found
    ]


@dataclass(frozen=True)
class PictureRow:
    """One picture of the on-screen table."""

    name: str
    width: int
    height: int
    found: dict[str, int]
    error: str = ""


@dataclass
class PredictionRun:
    """What a run did; `results` and `pictures` are the paths written, if any."""

    rows: list[PictureRow] = field(default_factory=list)
    seconds: float = 0.0
    results: Path | None = None
    pictures: Path | None = None

    def __repr__(self) -> str:
        return f"PredictionRun({len(self.rows)} pictures, {len(self.errors)} skipped, {self.results or self.pictures})"

    @property
    def errors(self) -> list[str]:
        return [row.error for row in self.rows if row.error]


def predict_into(
    detector: Detector, command: PredictCommand, folder: Path, progress: Callable[[Prediction], None] | None = None
) -> PredictionRun:
    """Predict every picture of the command's source and write `pictures/` and `results.json` below a folder.

    What cannot be read is reported in its row. Interrupting writes the results found so far. Raises UserError if nothing
    could be read.
    """
    ids = ResultIds(detector.classes, command.annotations)
    options = {item.name: getattr(command, item.name) for item in fields(PredictOptions)}
    stream = detector.stream(command.source, command.device, command.image_size, **options)
    run, rows = PredictionRun(), []
    began = time.perf_counter()
    try:
        with PictureWriter(folder / "pictures") as writer:
            for prediction in stream:
                run.rows.append(_row(prediction))
                rows += named_results(prediction, ids)
                if command.pictures and writer.write(prediction):
                    run.pictures = folder / "pictures"
                if progress is not None:
                    progress(prediction)
    finally:
        run.seconds = time.perf_counter() - began
        if command.results and any(not row.error for row in run.rows):
            run.results = write_atomic(folder / "results.json", json.dumps(rows, ensure_ascii=False))
    if len(run.errors) == len(run.rows):
        raise UserError(run.errors[0] if len(run.rows) == 1 else f"none of {len(run.rows)} files is a readable picture")
    return run


def _row(prediction: Prediction) -> PictureRow:
    found = dict(Counter(prediction.names).most_common())
    return PictureRow(prediction.name, prediction.width, prediction.height, found, prediction.error)
