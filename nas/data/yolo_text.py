"""YOLO text folders in and out: one .txt an image, lines `class cx cy w h` (or a polygon) as shares of the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from nas.data.coco import image_size
from nas.data.dataset import DetectionData, Polygons, Problem, Record
from nas.data.images import IMAGE_SUFFIXES
from nas.data.schema import CLASS_NAME_LIST, CLASS_NAME_MAP, LARGEST, fault, require_names
from nas.errors import UserError
from nas.files import read_text, read_yaml, write_atomic


def read_yolo(
    places: Sequence[Path],
    classes: Sequence[str],
    labels: Path | None = None,
    name: str = "custom",
    split: str = "train",
) -> tuple[DetectionData, list[Problem]]:
    """The images of folders (with sub-folders) or of text files that list them, with the boxes of their text files.

    labels: the folder of the text files, laid out as the (only) image folder; None: where `label_file` looks for them.
    An image without a text file has no boxes. A line of more than five numbers is a polygon, and the box is its hull.
    Left out, as problems: lines that are not numbers or of a class outside 0..C-1, and images that cannot be read.
    UserError if there is no image, or no text file for any of them.
    """
    paths = [path for place in places for path in pictures_in(place)]
    files = [labels / p.relative_to(places[0]).with_suffix(".txt") if labels else label_file(p) for p in paths]
    if not paths:
        raise UserError(f"{name} {split}: no images in {', '.join(map(str, places))}")
    if not any(file.is_file() for file in files):
        raise UserError(f"{name} {split}: none of {len(paths)} images has a label file, such as {files[0]}")
    records: list[Record] = []
    problems: list[Problem] = []
    for path, text in zip(paths, files, strict=True):
        size = image_size(path)
        if size is None:
            problems.append(Problem("unreadable image", str(path)))
            continue
        lines = read_text(text).splitlines() if text.is_file() else []
        records.append(_record(path, len(records) + 1, size, lines, len(classes), text, problems))
    ids = tuple(range(len(classes)))
    return DetectionData(name, split, tuple(classes), ids, tuple(records)), problems


def pictures_in(place: Path) -> list[Path]:
    """The images of a folder and its sub-folders, or those that a text file lists, relative to its folder or not."""
    if place.is_dir():
        return sorted(p for p in place.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    listed = [line.strip() for line in read_text(place).splitlines() if line.strip()]
    return [place.parent / line for line in listed]


def label_file(image: Path) -> Path:
    """Where the boxes of an image are: its path with the last folder `images` as `labels`, or beside it."""
    parts = list(image.parent.parts)
    beside = image.with_suffix(".txt")
    if "images" not in parts:
        return beside
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    there = Path(*parts, beside.name)
    return beside if beside.is_file() and not there.parent.is_dir() else there


def yolo_classes(root: Path, otherwise: Sequence[str] | None = None) -> list[str]:
    """Class names of a YOLO folder: `names` of data.yaml (a list, or a map from 0), or the lines of classes.txt.

    `otherwise` names them where neither file is there; it does not rename what a file names.
    """
    for file in (root / "data.yaml", root / "dataset.yaml"):
        if file.is_file():
            document = read_yaml(file)
            if not isinstance(document, dict):
                raise UserError(f"{file}: a map with `names` is needed")
            return yolo_names(document.get("names"), file)
    if (root / "classes.txt").is_file():
        lines = read_text(root / "classes.txt").splitlines()
        return require_names((line.strip() for line in lines if line.strip()), root / "classes.txt")
    if otherwise:
        return require_names(otherwise, "data.classes")
    raise UserError(f"{root}: neither data.yaml nor classes.txt names the classes; give data.classes=[...]")


def yolo_names(value: object, file: Path) -> list[str]:
    """`names` of a data.yaml in the order of their numbers; UserError naming the file if it is neither list nor map."""
    adapter: TypeAdapter[Any] = CLASS_NAME_MAP if isinstance(value, dict) else CLASS_NAME_LIST
    try:
        names = adapter.validate_python(value)
    except ValidationError as error:
        raise UserError(f"{file}: {fault(error, 'names')}") from None
    if isinstance(names, list):
        return require_names(names, file)
    if sorted(names) != list(range(len(names))):
        raise UserError(f"{file}: `names` must be a list of classes, or a map from 0, 1, 2, ...")
    return require_names((names[i] for i in range(len(names))), file)


def write_yolo(data: DetectionData, labels: Path) -> None:
    """One text file an image in the folder `labels`: boxes clipped to the image, crowd regions left out."""
    for record in data.records:
        kept = record.trainable()
        scale = np.array([kept.width, kept.height] * 2)
        boxes = kept.boxes / scale
        rows = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)
        lines = [f"{label} " + " ".join(f"{v:.8f}" for v in row) for label, row in zip(kept.labels, rows, strict=True)]
        write_atomic(labels / f"{record.path.stem}.txt", "".join(line + "\n" for line in lines))


def _record(
    path: Path,
    number: int,
    size: tuple[int, int],
    lines: Sequence[str],
    count: int,
    text: Path,
    problems: list[Problem],
) -> Record:
    width, height = size
    scale = np.array([width, height], np.float64)
    boxes, labels, polygons = [], [], []
    for row, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            label, *numbers = (float(v) for v in line.split())
        except ValueError:
            problems.append(Problem("label line that is not numbers", f"{text}:{row}"))
            continue
        if not (0 <= label < count and label == int(label)):
            problems.append(Problem("annotation of an unknown category", f"{text}:{row} has {label:g} of {count}"))
            continue
        if not all(abs(v) <= LARGEST for v in numbers):
            problems.append(Problem("box that is not finite", f"{text}:{row}"))
            continue
        if len(numbers) == 4:
            centre, side = np.array(numbers[:2]) * scale, np.array(numbers[2:]) * scale
            boxes.append([*(centre - side / 2), *(centre + side / 2)])
            outline: Polygons = ()
        elif len(numbers) >= 6 and len(numbers) % 2 == 0:
            points = np.array(numbers).reshape(-1, 2) * scale
            boxes.append([*points.min(0), *points.max(0)])
            outline = (points.astype(np.float32),)
        else:
            problems.append(Problem("annotation without a box", f"{text}:{row}"))
            continue
        labels.append(int(label))
        polygons.append(outline)
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    areas = ((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])).astype(np.float64)
    outlines = tuple(polygons) if any(polygons) else ()
    return Record(path, number, width, height, corners, np.array(labels, np.int64), areas, outlines)
