"""What a data set holds and what is wrong with it, found before a training starts; and the repair of it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nas.data.dataset import DetectionData, Problem, Record
from nas.data.images import decode_data, decode_image
from nas.errors import UserError

Splits = Mapping[str, DetectionData]


@dataclass(frozen=True)
class DataReport:
    """Counts of each split, boxes of each class (C,) by split, and every problem."""

    name: str
    classes: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    histograms: Mapping[str, tuple[int, ...]]
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Problems that stop a training in strict mode."""
        return tuple(p for p in self.problems if not p.warning)

    def summary(self) -> list[str]:
        """The report in lines of text."""
        lines = [f"{self.name}: {len(self.classes)} classes"]
        for split, counts in self.counts.items():
            lines.append(f"  {split}: " + ", ".join(f"{number} {what}" for what, number in counts.items()))
        shown = sorted(range(len(self.classes)), key=lambda c: -sum(h[c] for h in self.histograms.values()))
        for c in shown[:20]:
            numbers = ", ".join(f"{split} {h[c]}" for split, h in self.histograms.items())
            lines.append(f"    {self.classes[c]}: {numbers}")
        if len(shown) > 20:
            lines.append(f"    ... and {len(shown) - 20} classes more")
        for (kind, warning), number in Counter((p.kind, p.warning) for p in self.problems).items():
            first = next(p.where for p in self.problems if p.kind == kind)
            lines.append(f"  {'warning' if warning else 'problem'}: {number} x {kind} (first: {first})")
        return lines


def inspect_data(splits: Splits, read: Sequence[Problem] = (), images: bool = True) -> DataReport:
    """Look at every box, and with `images` decode and hash every file (a few milliseconds each, all cores).

    `read`: what the readers already found.
    """
    first = next(iter(splits.values()))
    problems = list(read)
    for split, data in splits.items():
        for record in data.records:
            problems += _box_problems(record, split)
        absent = [data.classes[c] for c in np.flatnonzero(data.histogram() == 0)]
        if absent and data.num_boxes:
            names = ", ".join(absent[:5]) + (" ..." if len(absent) > 5 else "")
            problems.append(Problem("class without a box", f"{split}: {names}", warning=True))
        if not data.num_boxes:
            problems.append(Problem("split without a box", split, warning=True))
    if images:
        problems += _image_problems(splits)
    else:
        records = [record for data in splits.values() for record in data.records]
        problems += [Problem("missing image", str(record.path)) for record in records if not record.path.is_file()]
    return DataReport(
        first.name,
        first.classes,
        {split: _counts(data) for split, data in splits.items()},
        {split: tuple(int(n) for n in data.histogram()) for split, data in splits.items()},
        tuple(problems),
    )


def require_sound(report: DataReport) -> None:
    """UserError that names the first problem and counts the kinds; warnings pass."""
    if report.errors:
        kinds = Counter(problem.kind for problem in report.errors)
        listed = ", ".join(f"{number} x {kind}" for kind, number in kinds.items())
        raise UserError(
            f"{report.name}: {listed}; first: {report.errors[0].where}. Correct the data, or drop and clip what is "
            "broken with data.mode=repair"
        )


def repair_data(splits: Splits, report: DataReport) -> dict[str, DetectionData]:
    """The splits without what the report found: broken boxes and images dropped, boxes clipped to their image,
    second copies of a box dropped, and training images that also stand in another split dropped."""
    bad_images = {p.where for p in report.problems if p.kind in _DROP_IMAGE}
    leaks = {p.where for p in report.problems if p.kind == _LEAK}
    repaired = {}
    for split, data in splits.items():
        records = []
        for record in data.records:
            if str(record.path) in bad_images or (split == "train" and str(record.path) in leaks):
                continue
            clipped = record.trainable()
            keep = np.ones(len(clipped.labels), bool)
            keep[_copies(clipped)] = False
            records.append(clipped.select(keep))
        repaired[split] = replace(data, records=tuple(records))
    return repaired


_LEAK = "image of the training split that stands in another split too"
_DROP_IMAGE = {"unreadable image", "missing image", "image of another size than annotated"}


def _counts(data: DetectionData) -> dict[str, int]:
    empty = sum(not len(record.labels) for record in data.records)
    crowd = sum(len(record.crowd_labels) for record in data.records)
    return {"images": len(data), "boxes": data.num_boxes, "crowd regions": crowd, "images without boxes": empty}


def _copies(record: Record) -> list[int]:
    """Boxes that repeat an earlier one with the same class."""
    seen: set[tuple[float, ...]] = set()
    copies = []
    for i, (box, label) in enumerate(zip(record.boxes.tolist(), record.labels.tolist(), strict=True)):
        key = (label, *box)
        if key in seen:
            copies.append(i)
        seen.add(key)
    return copies


def _box_problems(record: Record, split: str) -> list[Problem]:
    boxes = record.boxes
    if not len(boxes):
        return []
    where = f"{split} {record.path.name}"
    finite = np.isfinite(boxes).all(1)
    flat = finite & ((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1]))
    size = np.array([record.width, record.height])
    outside = finite & ~flat & ((boxes[:, :2] >= size).any(1) | (boxes[:, 2:] <= 0).any(1))
    over = finite & ~flat & ~outside & ((boxes[:, :2] < -1).any(1) | (boxes[:, 2:] > size + 1).any(1))
    kinds = (
        (~finite, "box that is not finite", False),
        (flat, "box of no width or height", False),
        (outside, "box outside its image", False),
        (over, "box that reaches over the border of its image", True),
    )
    found = [Problem(kind, where, w) for mask, kind, w in kinds for _ in range(int(mask.sum()))]
    return found + [Problem("second copy of a box", where, True) for _ in _copies(record)]


def _image_problems(splits: Splits) -> list[Problem]:
    listed = [(split, record) for split, data in splits.items() for record in data.records]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        results = list(pool.map(lambda item: _examine(item[1]), listed))
    problems = [problem for problem, _ in results if problem is not None]
    homes: dict[str, list[tuple[str, Path]]] = {}
    for (split, record), (_, digest) in zip(listed, results, strict=True):
        if digest:
            homes.setdefault(digest, []).append((split, record.path))
    for places in homes.values():
        names = {split for split, _ in places}
        if "train" in names and len(names) > 1:
            problems += [Problem(_LEAK, str(path), True) for split, path in places if split == "train"]
        elif len(names) > 1:
            problems.append(Problem("image in two splits", str(places[0][1]), True))
        if len(places) > len(names):
            problems.append(Problem("image twice in one split", str(places[0][1]), True))
    return problems


def _examine(record: Record) -> tuple[Problem | None, str]:
    """The problem of one image file, and the hash of its bytes."""
    try:
        data = record.path.read_bytes()
    except OSError:
        return Problem("missing image", str(record.path)), ""
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    try:
        decode_data(np.frombuffer(data, np.uint8), record)  # as training will
    except UserError:
        try:
            decode_image(data, str(record.path))
        except UserError:
            return Problem("unreadable image", str(record.path)), digest
        return Problem("image of another size than annotated", str(record.path)), digest
    return None, digest
