"""Data sets whose annotations come with maenas: their images are read from an archive, scaled, and ours put beside them.

One file a set in the folder `annotated`: where it comes from and under which licence, the folder of the images inside
the archive, how they are scaled, and for each split the images (id, file, width, height, boxes) with the source's
labels; `corrections` are the label errors that were found by looking.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nas.data.dataset import DetectionData, Record
from nas.data.formats.coco import write_coco
from nas.errors import UserError
from nas.files import write_atomic

#: Label, left, top, width and height of one object, in pixels of the scaled image.
Object = list[Any]


def annotated_names() -> tuple[str, ...]:
    """The sets whose annotations come with maenas."""
    folder = resources.files("nas.data").joinpath("annotated")
    return tuple(sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".json")))


def load_annotated(name: str) -> dict[str, Any]:
    """The file of a set; UserError with the known names for an unknown one."""
    if name not in annotated_names():
        raise UserError(f"data.layout={name}: as_is, or one of {', '.join(annotated_names())}")
    return json.loads(resources.files("nas.data").joinpath(f"annotated/{name}.json").read_text(encoding="utf-8"))


def place_annotated(document: Mapping[str, Any], archives: Sequence[Path], root: Path) -> list[str]:
    """Write images/, annotations/ and annotations_raw/ (without the corrections) of a set into `root`.

    Returns lines on source, licence and changes. UserError, before anything is written, for an archive that lacks an
    image or is none; for an image of another shape than annotated.
    """
    rows = [row for split in document["splits"].values() for row in split]
    sources = _find([row[1] for row in rows], archives, document["folder"])
    images = root / "images"
    for _, name, width, height, _ in rows:
        archive, entry = sources[name]
        write_atomic(images / name, _scaled(_read(archive, entry), (width, height), document, name))
    for split, entries in document["splits"].items():
        for folder, corrections in (("annotations_raw", []), ("annotations", document["corrections"])):
            records = tuple(_record(row, images, document["classes"], corrections) for row in entries)
            classes = tuple(document["classes"])
            data = DetectionData(document["name"], split, classes, tuple(range(1, len(classes) + 1)), records)
            write_coco(data, root / folder / f"{split}.json", images)
    told = f"{document['name']}: {document['source']}, licence {document['licence']}, credit {document['credit']}"
    return [told, f"{len(document['corrections'])} labels corrected (annotations_raw has none)", *document["notes"]]


def corrected(
    image: str, objects: Sequence[Object], classes: Sequence[str], corrections: Sequence[Mapping[str, Any]]
) -> list[Object]:
    """The objects of an image with its corrections applied, each once: another class, or gone where it `becomes` null."""
    result = list(objects)
    for edit in corrections:
        wanted = [classes.index(edit["class"]), *edit["box"]]
        if edit["image"] != image or wanted not in result:
            continue
        place = result.index(wanted)
        result[place : place + 1] = [[classes.index(edit["becomes"]), *edit["box"]]] if edit["becomes"] else []
    return result


def _find(names: Sequence[str], archives: Sequence[Path], folder: str) -> dict[str, tuple[Path, str]]:
    """Archive and entry of every image: a file of that name at any depth below `folder`."""
    wanted, found = set(names), dict[str, tuple[Path, str]]()
    for archive in archives:
        try:
            with zipfile.ZipFile(archive) as contents:
                entries = contents.namelist()
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{archive} cannot be unpacked: {error}") from None
        for entry in entries:
            name = PurePosixPath(entry).name
            if name in wanted and f"/{folder}/" in f"/{entry}":
                found.setdefault(name, (archive, entry))
    missing = [name for name in names if name not in found]
    if missing:
        told = ", ".join(path.name for path in archives)
        raise UserError(f"{len(missing)} of {len(names)} images are not in {folder} of {told}; first: {missing[0]}")
    return found


def _read(archive: Path, entry: str) -> bytes:
    try:
        with zipfile.ZipFile(archive) as contents:
            return contents.read(entry)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{archive} cannot be unpacked: {error}") from None


def _scaled(content: bytes, size: tuple[int, int], document: Mapping[str, Any], name: str) -> bytes:
    """The bytes of an image file: as they are without a `quality`, else upright, at most `longest_side` wide and high."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            upright = ImageOps.exif_transpose(opened)
            if document["quality"] is None:
                result, encoded = upright, content
            else:
                factor = min(1.0, document["longest_side"] / max(upright.size))
                result, stream = upright.convert("RGB"), io.BytesIO()
                if factor < 1:
                    result = result.resize(
                        (round(upright.width * factor), round(upright.height * factor)), Image.Resampling.LANCZOS
                    )
                result.save(stream, "JPEG", quality=document["quality"])
                encoded = stream.getvalue()
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{name} is no image: {error}") from None
    if result.size != size:
        raise UserError(
            f"{name} is {result.width} x {result.height}, annotated as {size[0]} x {size[1]}: another image"
        )
    return encoded


def _record(
    row: Sequence[Any], images: Path, classes: Sequence[str], corrections: Sequence[Mapping[str, Any]]
) -> Record:
    number, name, width, height, objects = row
    objects = corrected(name, objects, classes, corrections)
    boxes = np.array([item[1:] for item in objects], np.float64).reshape(-1, 4)
    areas = boxes[:, 2:].prod(1)
    boxes[:, 2:] += boxes[:, :2]
    labels = np.array([item[0] for item in objects], np.int64)
    return Record(images / name, number, width, height, boxes.astype(np.float32), labels, areas)
