"""COCO JSON in and out."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from nas.detection.dataset import DetectionData, Polygons, Record
from nas.detection.problems import Problem
from nas.errors import UserError
from nas.files import read_json, write_atomic


def read_coco(
    annotations: Path, images: Path, name: str = "custom", split: str = "train"
) -> tuple[DetectionData, list[Problem]]:
    """The images and boxes of a COCO file, labels numbered by ascending category id, and the entries left out.

    Left out, as problems: annotations of an unknown image or category, or without four numbers as box, and images
    listed without a readable size. UserError if the file is not a COCO detection file or a category is ambiguous.
    """
    document = read_json(annotations)
    if not isinstance(document, dict) or not all(isinstance(document.get(k), list) for k in ("images", "categories")):
        raise UserError(f"{annotations} is no COCO detection file: lists `images`, `annotations`, `categories`")
    classes = _classes(document["categories"], annotations)
    labels = {category: label for label, category in enumerate(classes)}
    problems: list[Problem] = []
    grouped: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    known = {image.get("id") for image in document["images"]}
    if len(known) != len(document["images"]):
        raise UserError(f"{annotations}: two images have the same id")
    for entry in document.get("annotations", []):
        if entry.get("image_id") not in known:
            problems.append(Problem("annotation of an unknown image", f"id {entry.get('image_id')}"))
        elif entry.get("category_id") not in labels:
            problems.append(Problem("annotation of an unknown category", f"id {entry.get('category_id')}"))
        elif not _is_box(entry.get("bbox")):
            problems.append(Problem("annotation without a box", f"annotation {entry.get('id')}"))
        else:
            grouped[entry["image_id"]].append(entry)
    records = []
    for image in document["images"]:
        record = _record(image, grouped[image.get("id")], images, labels, annotations)
        if isinstance(record, Problem):
            problems.append(record)
        else:
            records.append(record)
    return DetectionData(name, split, tuple(classes.values()), tuple(classes), tuple(records)), problems


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


def _classes(categories: list[Mapping[str, Any]], path: Path) -> dict[int, str]:
    """Category id -> name, ascending."""
    try:
        classes = {int(c["id"]): str(c["name"]) for c in sorted(categories, key=lambda c: int(c["id"]))}
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: every category needs an integer `id` and a `name`") from None
    if len(classes) != len(categories):
        raise UserError(f"{path}: two categories have the same id")
    names = list(classes.values())
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UserError(f"{path}: two categories are called {double!r}; rename one")
    if not classes:
        raise UserError(f"{path}: no categories; list the classes even if no image has boxes")
    return classes


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)


def _record(
    image: Mapping[str, Any],
    entries: list[Mapping[str, Any]],
    folder: Path,
    labels: Mapping[int, int],
    annotations: Path,
) -> Record | Problem:
    if "id" not in image or "file_name" not in image:
        raise UserError(f"{annotations}: every image needs `id` and `file_name`")
    path = folder / str(image["file_name"])
    width, height = image.get("width"), image.get("height")
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        size = image_size(path)
        if size is None:
            return Problem("image without a size", str(path))
        width, height = size
    crowd = np.array([bool(e.get("iscrowd", 0)) for e in entries], bool)
    boxes = np.array([e["bbox"] for e in entries], np.float64).reshape(-1, 4)
    areas = np.array([e.get("area", b[2] * b[3]) for e, b in zip(entries, boxes, strict=True)], np.float64)
    boxes[:, 2:] += boxes[:, :2]
    corners = boxes.astype(np.float32)
    numbers = np.array([labels[e["category_id"]] for e in entries], np.int64)
    outlines = tuple(_polygons(e.get("segmentation")) for e, c in zip(entries, crowd, strict=True) if not c)
    return Record(
        path,
        image["id"],
        width,
        height,
        corners[~crowd],
        numbers[~crowd],
        areas[~crowd],
        outlines if any(outlines) else (),
        corners[crowd],
        numbers[crowd],
        areas[crowd],
    )


def _polygons(segmentation: Any) -> Polygons:
    """Outlines (P, 2) of at least three points; run-length masks have none."""
    if not isinstance(segmentation, list):
        return ()
    usable = [p for p in segmentation if isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0]
    return tuple(np.array(p, np.float32).reshape(-1, 2) for p in usable)


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height, upright by EXIF, from the header of an image file; None if there is none to read."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (image.height, image.width) if turned else (image.width, image.height)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return None
