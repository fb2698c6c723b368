"""COCO JSON in and out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError

from nas.data.dataset import DetectionData, Polygons, Problem, Record
from nas.data.schema import (
    ANNOTATION,
    CATEGORY,
    IMAGE,
    OUTLINE,
    CocoAnnotation,
    fault,
    read_entries,
    require_names,
)
from nas.errors import UserError
from nas.files import read_json, write_atomic


def read_coco(
    annotations: Path, images: Path, name: str = "custom", split: str = "train"
) -> tuple[DetectionData, list[Problem]]:
    """The images and boxes of a COCO file, labels numbered by ascending category id, and the entries left out.

    Left out, as problems: entries with a value that cannot be used, annotations of an unknown image or category, and
    images listed without a readable size. A file without `annotations` has none. UserError if the file is not a COCO
    detection file, a category cannot be used, or an id stands for two things.
    """
    document = coco_document(annotations)
    classes = coco_classes(document, annotations)
    labels = {category: label for label, category in enumerate(classes)}
    pictures, problems = read_entries(IMAGE, document["images"], "images", annotations)
    entries, broken = read_entries(ANNOTATION, document["annotations"], "annotations", annotations)
    problems += broken
    grouped: dict[int | str, list[tuple[CocoAnnotation, Polygons]]] = {image.id: [] for _, image in pictures}
    if len(grouped) != len(pictures):
        raise UserError(f"{annotations}: two images have the same id")
    for position, entry in entries:
        where = f"{annotations} annotations[{position}]"
        if entry.image_id not in grouped:
            problems.append(Problem("annotation of an unknown image", f"{where} has image {entry.image_id!r}"))
        elif entry.category_id not in labels:
            problems.append(Problem("annotation of an unknown category", f"{where} has category {entry.category_id}"))
        else:
            try:
                grouped[entry.image_id].append((entry, _polygons(entry.segmentation, where)))
            except UserError as error:
                problems.append(Problem("outline that is not numbers", str(error)))
    records = []
    for _, image in pictures:
        path = images / image.file_name
        size = image.size or image_size(path)
        if size is None:
            problems.append(Problem("image without a size", str(path)))
        else:
            records.append(_record(path, image.id, size, grouped[image.id], labels))
    return DetectionData(name, split, tuple(classes.values()), tuple(classes), tuple(records)), problems


def coco_document(path: str | Path) -> dict[str, list[object]]:
    """The three lists of a COCO file, their entries unread; UserError naming the file and what it lacks."""
    document = read_json(path)
    if not isinstance(document, dict):
        raise UserError(f"{path} is no COCO detection file: a map with `images`, `annotations` and `categories`")
    lists: dict[str, list[object]] = {"annotations": [], **document}
    for key in ("images", "annotations", "categories"):
        if not isinstance(lists.get(key), list):
            raise UserError(f"{path} is no COCO detection file: `{key}` is not a list")
    return lists


def write_coco(data: DetectionData, path: Path, images: Path | None = None) -> Path:
    """A COCO file of the data; file names are relative to the folder `images` (default: bare names)."""
    entries: list[dict[str, Any]] = []
    pictures = []
    numbers = range(1, len(data) + 1)
    own = all(isinstance(record.image_id, int) for record in data.records)
    for number, record in zip(numbers, data.records, strict=True):
        image_id = record.image_id if own else number
        file_name = record.path.relative_to(images).as_posix() if images else record.path.name
        pictures.append({"id": image_id, "file_name": file_name, "width": record.width, "height": record.height})
        outlines = record.polygons or ((),) * len(record.labels)
        for box, label, area, outline in zip(record.boxes, record.labels, record.areas, outlines, strict=True):
            polygons = [np.round(p, 2).ravel().tolist() for p in outline]
            entries.append(_entry(len(entries) + 1, image_id, box, data.category_ids[label], area, 0, polygons))
        for box, label, area in zip(record.crowd_boxes, record.crowd_labels, record.crowd_areas, strict=True):
            entries.append(_entry(len(entries) + 1, image_id, box, data.category_ids[label], area, 1, []))
    categories = [{"id": i, "name": n} for i, n in zip(data.category_ids, data.classes, strict=True)]
    return write_atomic(path, json.dumps({"images": pictures, "annotations": entries, "categories": categories}))


def _entry(
    number: int, image: int | str, box: Any, category: int, area: float, crowd: int, polygons: list[list[float]]
) -> dict[str, Any]:
    x1, y1, x2, y2 = (round(float(v), 3) for v in box)
    return {
        "id": number,
        "image_id": image,
        "category_id": int(category),
        "bbox": [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)],
        "area": float(area),
        "iscrowd": crowd,
        "segmentation": polygons,
    }


def coco_classes(document: Mapping[str, Sequence[object]], path: str | Path) -> dict[int, str]:
    """Category id -> name, ascending; UserError for a category without either, and for one that is there twice."""
    categories, broken = read_entries(CATEGORY, document["categories"], "categories", path)
    if broken:
        raise UserError(broken[0].where)
    classes = {category.id: category.name for _, category in sorted(categories, key=lambda c: c[1].id)}
    if len(classes) != len(categories):
        raise UserError(f"{path}: two categories have the same id")
    require_names(classes.values(), path)
    return classes


def _record(
    path: Path,
    number: int | str,
    size: tuple[int, int],
    outlined: list[tuple[CocoAnnotation, Polygons]],
    labels: Mapping[int, int],
) -> Record:
    entries = [entry for entry, _ in outlined]
    crowd = np.array([bool(e.iscrowd) for e in entries], bool)
    boxes = np.array([e.bbox for e in entries], np.float64).reshape(-1, 4)
    areas = np.array([b[2] * b[3] if e.area is None else e.area for e, b in zip(entries, boxes, strict=True)])
    boxes[:, 2:] += boxes[:, :2]
    corners = boxes.astype(np.float32)
    numbers = np.array([labels[e.category_id] for e in entries], np.int64)
    polygons = tuple(outline for entry, outline in outlined if not entry.iscrowd)
    return Record(
        path,
        number,
        *size,
        corners[~crowd],
        numbers[~crowd],
        areas[~crowd].astype(np.float64),
        polygons if any(polygons) else (),
        corners[crowd],
        numbers[crowd],
        areas[crowd].astype(np.float64),
    )


def _polygons(segmentation: Any, where: str) -> Polygons:
    """Outlines (P, 2) of at least three points; run-length masks have none."""
    outlines = []
    for number, points in enumerate(segmentation if isinstance(segmentation, list) else ()):
        if isinstance(points, list) and len(points) >= 6 and len(points) % 2 == 0:
            try:
                outlines.append(np.array(OUTLINE.validate_python(points), np.float32).reshape(-1, 2))
            except ValidationError as error:
                raise UserError(fault(error, f"{where}.segmentation[{number}]")) from None
    return tuple(outlines)


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height, upright by EXIF, from the header of an image file; None if there is none to read."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (image.height, image.width) if turned else (image.width, image.height)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return None
