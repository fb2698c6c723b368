"""Pascal VOC XML in: one file an image, a bounding box of pixels an object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from nas.data.coco import image_size
from nas.data.dataset import DetectionData, Problem, Record
from nas.data.images import IMAGE_SUFFIXES
from nas.data.schema import LARGEST
from nas.errors import UserError
from nas.files import read_text

#: Characters of a file that can be meant.
LONGEST = 10_000_000


def read_voc(
    images: Path, files: Sequence[Path], classes: Sequence[str], name: str = "custom", split: str = "train"
) -> tuple[DetectionData, list[Problem]]:
    """The images that XML files describe, each found by the file's own name or by its `filename`, in the folder `images`.

    VOC counts pixels from 1 and both ends in: xmin 1, xmax 10 is 0 to 10. Objects marked `difficult` are crowd regions:
    never trained on, ignored by the evaluation. Left out, as problems: objects of an unknown class or without a box, and
    images that cannot be found or read.
    """
    pictures = {path.name: path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    stems = {path.stem: path for path in pictures.values()}
    labels = {label: number for number, label in enumerate(classes)}
    records: list[Record] = []
    problems: list[Problem] = []
    for file in files:
        tree = read_xml(file)
        told = Path(tree.findtext("filename", "").replace("\\", "/")).name
        path = stems.get(file.stem) or pictures.get(told) or images / (told or f"{file.stem}.jpg")
        size = image_size(path)
        if size is None:
            problems.append(Problem("image without a size", str(path)))
            continue
        records.append(_record(path, len(records) + 1, size, tree, labels, file, problems))
    return DetectionData(name, split, tuple(classes), tuple(range(len(classes))), tuple(records)), problems


def voc_classes(files: Sequence[Path]) -> list[str]:
    """The names of all objects of XML files, in alphabetical order."""
    return sorted(
        {(item.findtext("name") or "").strip() for file in files for item in read_xml(file).iter("object")} - {""}
    )


def read_xml(path: Path) -> ElementTree.Element:
    """The annotation of a file; UserError naming it if it is none, or defines entities, which can grow without bound."""
    text = read_text(path).lstrip("\ufeff")
    if len(text) > LONGEST or "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise UserError(f"{path}: refused, an annotation is short and declares no document type or entities")
    try:
        tree = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path} is not valid XML: {error}") from None
    if tree.tag != "annotation":
        raise UserError(f"{path} is no Pascal VOC file: it holds <{tree.tag[:40]}>, not <annotation>")
    return tree


def _record(
    path: Path,
    number: int,
    size: tuple[int, int],
    tree: ElementTree.Element,
    numbered: dict[str, int],
    file: Path,
    problems: list[Problem],
) -> Record:
    boxes, labels, crowd = [], [], []
    for position, item in enumerate(tree.iter("object"), 1):
        where = f"{file} object {position}"
        name = (item.findtext("name") or "").strip()
        if name not in numbered:
            problems.append(Problem("annotation of an unknown category", f"{where} is {name[:40]!r}"))
            continue
        try:
            x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError:
            problems.append(Problem("annotation without a box", where))
            continue
        if not all(math.isfinite(value) and abs(value) <= LARGEST for value in (x1, y1, x2, y2)):
            problems.append(Problem("box that is not finite", where))
            continue
        boxes.append((max(x1 - 1, min(x1, 0)), max(y1 - 1, min(y1, 0)), x2, y2))
        labels.append(numbered[name])
        crowd.append((item.findtext("difficult") or "0").strip() == "1")
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    numbers, hard = np.array(labels, np.int64), np.array(crowd, bool)
    areas = ((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])).astype(np.float64)
    easy = ~hard
    known = Record(path, number, *size, corners[easy], numbers[easy], areas[easy])
    return replace(known, crowd_boxes=corners[hard], crowd_labels=numbers[hard], crowd_areas=areas[hard])
