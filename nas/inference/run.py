"""A whole prediction run: a model, a source, and a folder with drawn pictures and COCO results."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.errors import UserError
from nas.files import write_atomic
from nas.inference.drawing import PictureWriter
from nas.inference.predictor import Prediction
from nas.inference.results import ResultIds, coco_results


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

    @property
    def errors(self) -> list[str]:
        return [row.error for row in self.rows if row.error]


def predict_into(
    detector: Any,
    source: Any,
    folder: str | Path,
    *,
    pictures: bool = True,
    results: bool = True,
    annotations: str | None = None,
    progress: Callable[[Prediction], None] | None = None,
    **options: Any,
) -> PredictionRun:
    """Predict every picture of a source and write `pictures/` and `results.json` below a folder.

    detector: a nas.Detector; options: those of its `stream`. What cannot be read is reported in its row. Interrupting
    writes the results found so far. Raises UserError if nothing could be read.
    """
    folder = Path(folder)
    ids = ResultIds(detector.classes, annotations)
    stream = detector.stream(source, **options)
    run, rows = PredictionRun(), []
    began = time.perf_counter()
    try:
        with PictureWriter(folder / "pictures") as writer:
            for prediction in stream:
                run.rows.append(_row(prediction))
                rows += coco_results(prediction, ids)
                if pictures and writer.write(prediction):
                    run.pictures = folder / "pictures"
                if progress is not None:
                    progress(prediction)
    finally:
        run.seconds = time.perf_counter() - began
        if results and any(not row.error for row in run.rows):
            run.results = write_atomic(folder / "results.json", json.dumps(rows, ensure_ascii=False))
    if len(run.errors) == len(run.rows):
        raise UserError(run.errors[0] if len(run.rows) == 1 else f"none of {len(run.rows)} files is a readable picture")
    return run


def _row(prediction: Prediction) -> PictureRow:
    found = dict(Counter(prediction.names).most_common())
    return PictureRow(prediction.name, prediction.width, prediction.height, found, prediction.error)
