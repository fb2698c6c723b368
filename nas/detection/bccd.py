"""BCCD's VOC annotations to COCO files, with the label errors that were found by looking corrected."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from nas.detection.coco_format import write_coco
from nas.detection.dataset import DetectionData, Record
from nas.errors import UserError
from nas.files import read_text

CLASSES = ("RBC", "WBC", "Platelets")


def convert_bccd(root: Path) -> None:
    """Turn the unpacked repository under `root` into images/, annotations_raw/ and annotations/ (with the corrections).

    Splits are the repository's own. VOC boxes are 1-based and inclusive: x = xmin - 1, width = xmax - xmin + 1.
    """
    found = sorted(root.glob("**/BCCD/ImageSets/Main"))
    if not found:
        raise UserError(f"{root}: no folder BCCD/ImageSets/Main; is this the archive of Shenggan/BCCD_Dataset?")
    source = found[0].parents[1]
    images = root / "images"
    images.mkdir(exist_ok=True)
    corrections = load_corrections()
    number = 0
    for split in ("train", "val", "test"):
        names = read_text(source / "ImageSets" / "Main" / f"{split}.txt").split()
        raw, edited = [], []
        for name in names:
            number += 1
            shutil.copyfile(source / "JPEGImages" / f"{name}.jpg", images / f"{name}.jpg")
            objects, size = read_voc(source / "Annotations" / f"{name}.xml")
            raw.append(_record(images / f"{name}.jpg", number, size, objects))
            edited.append(_record(images / f"{name}.jpg", number, size, corrected(f"{name}.jpg", objects, corrections)))
        for folder, records in (("annotations_raw", raw), ("annotations", edited)):
            data = DetectionData("bccd", split, CLASSES, (1, 2, 3), tuple(records))
            write_coco(data, root / folder / f"{split}.json", images)


def read_voc(path: Path) -> tuple[list[tuple[str, tuple[int, int, int, int]]], tuple[int, int]]:
    """(class, (xmin, ymin, xmax, ymax)) of every object of a VOC file, and width and height of its image."""
    try:
        tree = ElementTree.fromstring(read_text(path))
        size = (int(_text(tree, "size/width")), int(_text(tree, "size/height")))
        sides = ("bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax")
        objects = []
        for item in tree.iter("object"):
            x1, y1, x2, y2 = (int(float(_text(item, side))) for side in sides)
            objects.append((_text(item, "name"), (x1, y1, x2, y2)))
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path} is no VOC annotation: {error}") from None
    return objects, size


def load_corrections() -> list[Mapping[str, Any]]:
    """The corrections: image, class, VOC box, and whether to drop or relabel it, each with its reason."""
    return json.loads(resources.files("nas.detection").joinpath("bccd_edits.json").read_text(encoding="utf-8"))


def corrected(
    image: str, objects: Sequence[tuple[str, tuple[int, int, int, int]]], corrections: Sequence[Mapping[str, Any]]
) -> list[tuple[str, tuple[int, int, int, int]]]:
    """The objects of an image with its corrections applied, each once."""
    result = list(objects)
    for edit in corrections:
        wanted = (edit["class"], tuple(edit["voc_box"]))
        if edit["image"] != image or wanted not in result:
            continue
        place = result.index(wanted)
        if edit["action"] == "drop":
            del result[place]
        else:
            result[place] = (edit["new_class"], wanted[1])
    return result


def _record(
    path: Path, number: int, size: tuple[int, int], objects: Sequence[tuple[str, tuple[int, int, int, int]]]
) -> Record:
    boxes = np.array([box for _, box in objects], np.float32).reshape(-1, 4) - (1, 1, 0, 0)
    degenerate = np.array([b[2] <= b[0] or b[3] <= b[1] for _, b in objects], bool)
    boxes[degenerate, 2:] = boxes[degenerate, :2]  # kept as boxes of zero size, so that the report names them
    labels = np.array([CLASSES.index(name) for name, _ in objects], np.int64)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1).astype(np.float64)
    return Record(path, number, *size, boxes.astype(np.float32), labels, areas)


def _text(node: ElementTree.Element, path: str) -> str:
    found = node.find(path)
    if found is None or found.text is None:
        raise ValueError(f"no {path}")
    return found.text.strip()
