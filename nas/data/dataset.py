"""Annotated images as immutable values: what readers make and the loader, the report and the evaluator consume."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.errors import UserError

Polygons = tuple[NDArray[np.float32], ...]


def empty_boxes() -> NDArray[np.float32]:
    """No box: (0, 4)."""
    return np.zeros((0, 4), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One image with its objects.

    boxes (K, 4) float32 corners x1, y1, x2, y2 in pixels as annotated (not clipped); labels (K,) int64, 0-based
    positions in the data's classes; areas (K,) float64 as the file gives them (COCO: of the mask); polygons: one tuple
    of (P, 2) outlines a box, or () when the file has none. Crowd regions stand apart: never trained on, ignored by the
    evaluation as pycocotools does.
    """

    path: Path
    image_id: int | str
    width: int
    height: int
    boxes: NDArray[np.float32] = field(default_factory=empty_boxes)
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    areas: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    polygons: tuple[Polygons, ...] = ()
    crowd_boxes: NDArray[np.float32] = field(default_factory=empty_boxes)
    crowd_labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    crowd_areas: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def select(self, keep: NDArray[np.bool_]) -> Record:
        """The same image with the boxes where `keep` (K,) is true."""
        polygons = tuple(p for p, kept in zip(self.polygons, keep, strict=True) if kept) if self.polygons else ()
        return replace(
            self, boxes=self.boxes[keep], labels=self.labels[keep], areas=self.areas[keep], polygons=polygons
        )

    def trainable(self) -> Record:
        """Boxes clipped to the image, those of no width or height left out."""
        limit = np.array([self.width, self.height, self.width, self.height], np.float32)
        boxes = np.clip(self.boxes, 0, limit)
        keep = np.isfinite(self.boxes).all(1) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return replace(self, boxes=boxes).select(keep)


@dataclass(frozen=True, slots=True, eq=False)
class DetectionData:
    """One split: records, class names by label, and the category ids that the labels had in the file."""

    name: str
    split: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    records: tuple[Record, ...]

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        counts = f"{len(self)} images, {self.num_boxes} boxes, {self.num_classes} classes"
        return f"DetectionData({self.name} {self.split}: {counts})"

    @property
    def num_classes(self) -> int:
        """How many classes; labels run from 0 to this minus one."""
        return len(self.classes)

    @property
    def num_boxes(self) -> int:
        """Boxes to train on, without crowd regions."""
        return sum(len(record.labels) for record in self.records)

    def histogram(self) -> NDArray[np.int64]:
        """Boxes of each class (C,), without crowd regions."""
        labels = [record.labels for record in self.records]
        return np.bincount(np.concatenate(labels) if labels else [], minlength=self.num_classes).astype(np.int64)

    def digest(self) -> str:
        """Hexadecimal digest of what a training sees of the data, wherever it lies: annotations, and the names and
        lengths of the picture files."""
        state = hashlib.blake2b(repr(self.classes).encode(), digest_size=8)
        for record in self.records:
            outlines = [points for polygons in record.polygons for points in polygons]
            arrays: list[NDArray] = [record.boxes, record.labels, record.areas, *outlines]
            arrays += [record.crowd_boxes, record.crowd_labels, record.crowd_areas]
            length = record.path.stat().st_size if record.path.is_file() else 0
            facts = record.path.name, record.image_id, record.width, record.height, length, [a.shape for a in arrays]
            state.update(repr(facts).encode())
            for array in arrays:
                state.update(array.tobytes())
        return state.hexdigest()

    def subset(self, indices: Iterable[int]) -> DetectionData:
        """The same data with the records at `indices`, in that order."""
        return replace(self, records=tuple(self.records[i] for i in indices))


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding in a data set: what is wrong, and where. A `warning` is told but never stops a training."""

    kind: str
    where: str
    warning: bool = False


def relabel(data: DetectionData, classes: Sequence[str]) -> DetectionData:
    """The data with the classes in the given order, matched by name; boxes of other classes are left out.

    UserError if a wanted class is not in the data.
    """
    missing = [name for name in classes if name not in data.classes]
    if missing:
        raise UserError(
            f"{data.name} {data.split}: no class {missing[0]!r}; the data has {', '.join(data.classes[:20])}"
            + (" ..." if len(data.classes) > 20 else "")
        )
    if len(set(classes)) != len(classes):
        raise UserError(f"{data.name}: a class is listed twice in classes={list(classes)}")
    if tuple(classes) == data.classes:
        return data
    new = np.full(data.num_classes, -1, np.int64)
    for label, name in enumerate(classes):
        new[data.classes.index(name)] = label
    ids = tuple(data.category_ids[data.classes.index(name)] for name in classes)
    return replace(
        data, classes=tuple(classes), category_ids=ids, records=tuple(_relabel(r, new) for r in data.records)
    )


def _relabel(record: Record, new: NDArray[np.int64]) -> Record:
    kept = record.select(new[record.labels] >= 0)
    crowd = new[record.crowd_labels] >= 0
    return replace(
        kept,
        labels=new[kept.labels],
        crowd_boxes=record.crowd_boxes[crowd],
        crowd_labels=new[record.crowd_labels[crowd]],
        crowd_areas=record.crowd_areas[crowd],
    )
