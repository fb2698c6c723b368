"""Gets the archives of a data set: downloaded once, checked, unpacked safely.

The annotations of three sets come with maenas, one file a set in the folder `annotated`: their images are read from the
archive, scaled, and ours put beside them. The file says where the images come from and under which licence, the folder
inside the archive, how they are scaled, and for each split the images (id, file, width, height, boxes) with the source's
labels; `corrections` are the label errors that were found by looking.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import shutil
import stat
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import TypedDict

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nas.data.coco import write_coco
from nas.data.dataset import DetectionData, Record
from nas.data.sources import DataConfig
from nas.errors import UserError
from nas.files import write_atomic

CHUNK = 1 << 20
#: How many times larger than its zip a data set can be, at the most: labels of text, hardly any picture.
GROWTH = 50
#: Label, left, top, width and height of one object, in pixels of the scaled image.
Object = list[float]
#: An image's id, file, width, height and objects.
Row = tuple[int, str, int, int, list[Object]]
#: A box that has another class than `class`, or is none: `becomes` null.
Correction = TypedDict("Correction", {"image": str, "class": str, "box": list[float], "becomes": str | None})


class AnnotatedSet(TypedDict):
    """What the file of a set holds."""

    name: str
    source: str
    licence: str
    credit: str
    notes: list[str]
    folder: str
    quality: int | None
    longest_side: int
    classes: list[str]
    corrections: list[Correction]
    splits: dict[str, list[Row]]


def fetch_data(config: DataConfig, output: Path) -> list[str]:
    """Download and check the archives of data.download into the folder `output`, and lay their data out there.

    An archive that is already there with the right checksum is not downloaded again. Returns what there is to say about
    the data. UserError for an unknown layout, an unreachable URL, a wrong checksum or a broken archive; nothing is
    unpacked then.
    """
    if not config.download:
        raise UserError(f"data {config.name} names nothing to download (data.download); get it by hand into {output}")
    document = None if config.layout == "as_is" else load_annotated(config.layout)
    output.mkdir(parents=True, exist_ok=True)
    archives = [download(item.url, item.checksum, output) for item in config.download]
    if document is not None:
        return place_annotated(document, archives, output)
    for archive in archives:
        unpack(archive, output)
    return []


def download(url: str, checksum: str | None, folder: Path) -> Path:
    """The file of a URL in `folder`, complete and with the checksum `md5:HEX` or `sha256:HEX` (None: not checked)."""
    address = urllib.parse.urlsplit(url)
    name = Path(urllib.parse.unquote(address.path)).name
    if address.scheme not in ("http", "https", "file") or not name:
        raise UserError(f"cannot fetch {url!r}: an http, https or file URL of an archive is needed")
    target = folder / name
    if checksum:
        _checksum_kind(checksum)
    if checksum and target.is_file() and file_checksum(target, checksum) == checksum:
        return target
    partial = target.with_name(name + ".part")
    try:
        with urllib.request.urlopen(url, timeout=60) as source, partial.open("wb") as stream:
            shutil.copyfileobj(source, stream, CHUNK)
    except (urllib.error.URLError, http.client.HTTPException, OSError, TimeoutError) as error:
        partial.unlink(missing_ok=True)
        reason = getattr(error, "reason", None) or error
        raise UserError(f"cannot fetch {url}: {reason}") from None
    if checksum:
        actual = file_checksum(partial, checksum)
        if actual != checksum:
            partial.unlink()
            raise UserError(f"{url}: checksum is {actual}, not {checksum}; the source has changed or was damaged")
    os.replace(partial, target)
    return target


def file_checksum(path: Path, like: str) -> str:
    """The checksum of a file, written as `like` is: `md5:...` or `sha256:...`."""
    kind = _checksum_kind(like)
    with path.open("rb") as stream:
        return f"{kind}:{hashlib.file_digest(stream, kind).hexdigest()}"


def _checksum_kind(like: str) -> str:
    kind = like.partition(":")[0]
    if kind not in ("md5", "sha256"):
        raise UserError(f"checksum {like!r}: md5:HEX or sha256:HEX")
    return kind


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file; UserError, before anything is written, if it is none, if an entry would land outside the folder
    or is a link, or if it would grow beyond what pictures and annotations do, or beyond the free disk."""
    with opened_zip(archive) as contents:
        for entry in contents.infolist():
            inside = (folder / entry.filename).resolve().is_relative_to(folder.resolve())
            if not inside or stat.S_ISLNK(entry.external_attr >> 16):
                raise UserError(f"{archive}: entry {entry.filename[:80]!r} points outside the folder; refused")
        size = sum(entry.file_size for entry in contents.infolist())
        if size > max(GROWTH * archive.stat().st_size, 1 << 30):
            raise UserError(
                f"{archive} would grow {size / archive.stat().st_size:.0f} times; refused as no data set does"
            )
        free = shutil.disk_usage(folder).free
        if size > 0.95 * free:
            raise UserError(f"{archive} needs {size / 2**30:.1f} GiB, {free / 2**30:.1f} are free in {folder.parent}")
        try:
            contents.extractall(folder)
        except (RuntimeError, NotImplementedError, zlib.error, EOFError, ValueError) as error:  # a password, a method
            raise UserError(f"{archive} cannot be unpacked: {error}") from None


@contextmanager
def opened_zip(archive: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file to read; UserError, also for what is found broken while it is read."""
    try:
        with zipfile.ZipFile(archive) as contents:
            yield contents
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{archive} cannot be unpacked: {error}") from None


def annotated_names() -> tuple[str, ...]:
    """The sets whose annotations come with maenas."""
    folder = resources.files("nas.data").joinpath("annotated")
    return tuple(sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".json")))


def load_annotated(name: str) -> AnnotatedSet:
    """The file of a set; UserError with the known names for an unknown one."""
    if name not in annotated_names():
        raise UserError(f"data.layout={name}: as_is, or one of {', '.join(annotated_names())}")
    file = resources.files("nas.data").joinpath(f"annotated/{name}.json")
    return json.loads(file.read_text(encoding="utf-8"))


def place_annotated(document: AnnotatedSet, archives: Sequence[Path], root: Path) -> list[str]:
    """Write images/, annotations/ and annotations_raw/ (without the corrections) of a set into `root`.

    Returns lines on source, licence and changes. UserError, before anything is written, for an archive that lacks an
    image or is none; for an image of another shape than annotated.
    """
    rows = [row for split in document["splits"].values() for row in split]
    sources = _find([row[1] for row in rows], archives, document["folder"])
    images = root / "images"
    for _, name, width, height, _ in rows:
        archive, entry = sources[name]
        with opened_zip(archive) as contents:
            content = contents.read(entry)
        write_atomic(images / name, _scaled(content, (width, height), document, name))
    for split, entries in document["splits"].items():
        for folder, corrections in (("annotations_raw", []), ("annotations", document["corrections"])):
            records = tuple(_record(row, images, document["classes"], corrections) for row in entries)
            classes = tuple(document["classes"])
            data = DetectionData(document["name"], split, classes, tuple(range(1, len(classes) + 1)), records)
            write_coco(data, root / folder / f"{split}.json", images)
    told = f"{document['name']}: {document['source']}, licence {document['licence']}, credit {document['credit']}"
    return [told, f"{len(document['corrections'])} labels corrected (annotations_raw has none)", *document["notes"]]


def corrected(
    image: str, objects: Sequence[Object], classes: Sequence[str], corrections: Sequence[Correction]
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
        with opened_zip(archive) as contents:
            entries = contents.namelist()
        for entry in entries:
            name = PurePosixPath(entry).name
            if name in wanted and f"/{folder}/" in f"/{entry}":
                found.setdefault(name, (archive, entry))
    missing = [name for name in names if name not in found]
    if missing:
        told = ", ".join(path.name for path in archives)
        raise UserError(f"{len(missing)} of {len(names)} images are not in {folder} of {told}; first: {missing[0]}")
    return found


def _scaled(content: bytes, size: tuple[int, int], document: AnnotatedSet, name: str) -> bytes:
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


def _record(row: Row, images: Path, classes: Sequence[str], corrections: Sequence[Correction]) -> Record:
    number, name, width, height, objects = row
    objects = corrected(name, objects, classes, corrections)
    boxes = np.array([item[1:] for item in objects], np.float64).reshape(-1, 4)
    areas = boxes[:, 2:].prod(1)
    boxes[:, 2:] += boxes[:, :2]
    labels = np.array([item[0] for item in objects], np.int64)
    return Record(images / name, number, width, height, boxes.astype(np.float32), labels, areas)
