"""Average precision as COCO measures it, per class too, with curves and confusions, from detections and annotations."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.data.dataset import DetectionData, Record
from nas.report.canvas import ACCENT, PALE, Shown, canvas, label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERS = tuple("ap ap50 ap75 ap_small ap_medium ap_large ar1 ar10 ar100 ar_small ar_medium ar_large".split())
RECALLS = np.linspace(0, 1, 101)
#: Scores below which detections are left out, for F1.
THRESHOLDS = np.linspace(0, 1, 101)


class Found(NamedTuple):
    """Detections of one image in its own pixels: boxes (K, 4) corners, scores (K,), labels (K,)."""

    boxes: NDArray
    scores: NDArray
    labels: NDArray


class ClassScore(NamedTuple):
    """A class: AP, AP at IoU 0.5 (-1 without boxes), and how many boxes it has."""

    ap: float
    ap50: float
    boxes: int


@dataclass(frozen=True)
class Evaluation(Shown):
    """The twelve numbers of COCO in [0, 1] (-1: nothing to measure), scores by class, and what the plots need.

    precision (C, 101) over RECALLS and f1 (C, 101) over THRESHOLDS, at IoU 0.5; confusion (C + 1, C + 1): truth by row,
    prediction by column, background last, counted at IoU 0.5 for detections above `confusion_score`. milliseconds: the
    model's time an image, by name. The picture has AP and AP50 of each class, the twenty with the most boxes.
    """

    numbers: Mapping[str, float]
    per_class: Mapping[str, ClassScore]
    precision: NDArray[np.float64]
    f1: NDArray[np.float64]
    confusion: NDArray[np.int64]
    confusion_score: float
    images: int
    milliseconds: Mapping[str, float]

    @property
    def ap(self) -> float:
        """AP over IoU 0.5 to 0.95."""
        return self.numbers["ap"]

    @property
    def ap50(self) -> float:
        """AP at IoU 0.5."""
        return self.numbers["ap50"]

    @property
    def ap75(self) -> float:
        """AP at IoU 0.75."""
        return self.numbers["ap75"]

    @property
    def curves(self) -> dict[str, tuple[NDArray, NDArray]]:
        """(recall, precision) at IoU 0.5 of each class that has boxes."""
        return {name: (RECALLS, row) for name, row in self._known(self.precision)}

    @property
    def f1_curves(self) -> dict[str, tuple[NDArray, NDArray]]:
        """(score threshold, F1) at IoU 0.5 of each class that has boxes."""
        return {name: (THRESHOLDS, row) for name, row in self._known(self.f1)}

    @property
    def best_f1(self) -> tuple[float, float]:
        """The highest F1, a mean over the classes that have boxes, and the lowest score threshold that reaches it."""
        rows = [row for _, row in self._known(self.f1)]
        mean = np.mean(rows, 0) if rows else np.zeros(len(THRESHOLDS))
        best = int(mean.argmax())
        return float(mean[best]), float(THRESHOLDS[best])

    def _known(self, rows: NDArray) -> list[tuple[str, NDArray]]:
        """The rows of the classes that have boxes."""
        return [(name, row) for name, row in zip(self.per_class, rows, strict=True) if self.per_class[name].boxes]

    def __repr__(self) -> str:
        known = f"AP {self.ap:.3f}, AP50 {self.ap50:.3f}, AP75 {self.ap75:.3f}"
        return f"Evaluation({known}; {self.images} images, {len(self.per_class)} classes)"

    def plot(self) -> Figure:
        rows = sorted(self.per_class.items(), key=lambda item: -item[1].boxes)[:20]
        figure, ((axes,),) = canvas(1, 1, 6, 1 + 0.25 * len(rows))
        names = [name for name, _ in rows]
        axes.barh(names, [max(score.ap50, 0) for _, score in rows], color=PALE, label="AP50")
        axes.barh(names, [max(score.ap, 0) for _, score in rows], color=ACCENT, label="AP", height=0.4)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        label(axes, f"AP {self.ap:.3f}", "", "")
        axes.legend(fontsize=8, frameon=False)
        return figure

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {
            "images": self.images,
            **self.numbers,
            "best_f1": dict(zip(("f1", "score_threshold"), self.best_f1, strict=True)),
            "milliseconds": dict(self.milliseconds),
            "per_class": {name: score._asdict() for name, score in self.per_class.items()},
            "confusion": {
                "score_threshold": self.confusion_score,
                "classes": [*self.per_class, "background"],
                "truth_by_prediction": self.confusion.tolist(),
            },
        }


def score_detections(
    data: DetectionData,
    found: Sequence[Found],
    confusion_score: float = 0.25,
    milliseconds: Mapping[str, float] | None = None,
) -> Evaluation:
    """Score the detections of every record of the data, in its order, by pycocotools (silent)."""
    evaluator = _run_pycocotools(data, found)
    precision = evaluator.eval["precision"][:, :, :, 0, 2]  # (thresholds, recalls, classes), all areas, 100 detections
    boxes = data.histogram()
    scores = {
        name: ClassScore(_mean(precision[:, :, c]), _mean(precision[0, :, c]), int(boxes[c]))
        for c, name in enumerate(data.classes)
    }
    return Evaluation(
        dict(zip(NUMBERS, (float(v) for v in evaluator.stats), strict=True)),
        scores,
        np.maximum(precision[0].T, 0),
        _f1(evaluator),
        confusion_matrix(data, found, confusion_score),
        confusion_score,
        len(data),
        dict(milliseconds or {}),
    )


def result_row(image_id: int | str, category_id: int | str, box: Sequence[float], score: float) -> dict[str, object]:
    """One detection in COCO's results format, bbox = [x, y, width, height] of the corners in pixels."""
    x1, y1, x2, y2 = box
    bbox = [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": round(score, 6)}


def coco_results(data: DetectionData, found: Sequence[Found]) -> list[dict[str, object]]:
    """Detections as COCO's results, with the image and category ids of the annotation file."""
    return [
        result_row(record.image_id, int(data.category_ids[int(label)]), box, score)
        for record, image in zip(data.records, found, strict=True)
        for box, score, label in zip(image.boxes.tolist(), image.scores.tolist(), image.labels, strict=True)
    ]


def confusion_matrix(data: DetectionData, found: Sequence[Found], threshold: float = 0.25) -> NDArray[np.int64]:
    """(C + 1, C + 1): each detection above the threshold, best first, takes the free box of any class that it overlaps
    most, from IoU 0.5 on; the others are background. Detections mostly inside a crowd region are left out."""
    count = data.num_classes
    matrix = np.zeros((count + 1, count + 1), np.int64)
    for record, image in zip(data.records, found, strict=True):
        order = np.argsort(-image.scores, kind="stable")
        order = order[image.scores[order] > threshold]
        overlap = _iou(image.boxes[order], record.boxes)
        free = np.ones(len(record.labels), bool)
        in_crowd = _inside_crowd(image.boxes[order], record)
        for row, index in enumerate(order):
            candidates = np.where(free, overlap[row], 0)
            best = int(candidates.argmax()) if len(candidates) else -1
            if best >= 0 and candidates[best] >= 0.5:
                free[best] = False
                matrix[record.labels[best], int(image.labels[index])] += 1
            elif not in_crowd[row]:
                matrix[count, int(image.labels[index])] += 1
        matrix[:count, count] += np.bincount(record.labels[free], minlength=count)
    return matrix


def _run_pycocotools(data: DetectionData, found: Sequence[Found]) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        reference, detections = COCO(), COCO()
        reference.dataset = {
            "images": [{"id": number} for number in range(len(data))],
            "annotations": _numbered(
                entry for number, record in enumerate(data.records) for entry in _truth(record, number)
            ),
            "categories": [{"id": c} for c in range(data.num_classes)],
        }
        detections.dataset = {  # loadRes refuses an empty list
            **reference.dataset,
            "annotations": _numbered(
                {**_entry(number, box, label), "score": float(score)}
                for number, image in enumerate(found)
                for box, score, label in zip(_corners(image.boxes), image.scores, image.labels, strict=True)
            ),
        }
        reference.createIndex()
        detections.createIndex()
        evaluator = COCOeval(reference, detections, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def _f1(evaluator: Any) -> NDArray[np.float64]:
    """F1 (C, 101) of the detections that score at least each of THRESHOLDS, by pycocotools' matches at IoU 0.5."""
    images, kinds = len(evaluator.params.imgIds), len(evaluator.params.areaRng)
    rows = []
    for c in range(len(evaluator.params.catIds)):
        first = c * kinds * images  # of the class, all areas
        cells = [cell for cell in evaluator.evalImgs[first : first + images] if cell is not None]
        boxes = sum(int((np.asarray(cell["gtIgnore"]) == 0).sum()) for cell in cells)
        scores, hits, ignored = (
            np.concatenate([np.asarray(part) for part in parts]) if parts else np.zeros(0)
            for parts in (
                [cell["dtScores"] for cell in cells],
                [cell["dtMatches"][0] > 0 for cell in cells],
                [cell["dtIgnore"][0] for cell in cells],
            )
        )
        kept = (scores[None] >= THRESHOLDS[:, None]) & (ignored == 0)[None]
        rows.append(2 * (kept & (hits > 0)[None]).sum(1) / np.maximum(kept.sum(1) + boxes, 1))
    return np.array(rows, np.float64).reshape(-1, len(THRESHOLDS))


def _truth(record: Record, number: int) -> list[dict[str, Any]]:
    parts = (
        (record.boxes, record.labels, record.areas, 0),
        (record.crowd_boxes, record.crowd_labels, record.crowd_areas, 1),
    )
    return [
        {**_entry(number, box, label), "area": float(area), "iscrowd": crowd}
        for boxes, labels, areas, crowd in parts
        for box, label, area in zip(_corners(boxes), labels, areas, strict=True)
    ]


def _corners(boxes: NDArray) -> list[list[float]]:
    return np.asarray(boxes, np.float64).reshape(-1, 4).tolist()


def _entry(number: int, box: Sequence[float], label: int) -> dict[str, Any]:
    """A box of one image as pycocotools takes it."""
    width, height = box[2] - box[0], box[3] - box[1]
    bbox = [box[0], box[1], width, height]
    return {"image_id": number, "category_id": int(label), "bbox": bbox, "area": width * height, "iscrowd": 0}


def _numbered(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**entry, "id": number} for number, entry in enumerate(entries, 1)]


def _mean(values: NDArray) -> float:
    """Mean of what could be measured, else -1."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else -1.0


def _intersection(boxes: NDArray, others: NDArray) -> NDArray[np.float64]:
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(boxes[:, None, :2], others[None, :, :2])
    return np.clip(sides, 0, None).prod(-1)


def _area(boxes: NDArray) -> NDArray[np.float64]:
    return (boxes[:, 2:] - boxes[:, :2]).prod(-1)


def _iou(boxes: NDArray, others: NDArray) -> NDArray[np.float64]:
    inter = _intersection(boxes, others)
    return inter / np.maximum(_area(boxes)[:, None] + _area(others)[None] - inter, 1e-9)


def _inside_crowd(boxes: NDArray, record: Record) -> NDArray[np.bool_]:
    inter = _intersection(boxes, record.crowd_boxes)
    return (inter / np.maximum(_area(boxes), 1e-9)[:, None]).max(1, initial=0) >= 0.5
