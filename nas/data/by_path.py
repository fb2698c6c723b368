"""A data set from nothing but its path: COCO, YOLO or Pascal VOC, as people and Roboflow lay them out, in a folder or a zip."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.data.coco import coco_classes, coco_document
from nas.data.fetch import opened_zip, unpack
from nas.data.images import IMAGE_SUFFIXES
from nas.data.sources import SPLITS, DataConfig, Split, voc_files
from nas.data.voc import voc_classes
from nas.data.yolo_text import label_file, pictures_in, yolo_names
from nas.errors import UserError, shown
from nas.files import config_folder, read_text, read_yaml

#: What the folders and files of a split are called.
ALIASES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
#: Files that name YOLO's classes, line by line.
NAME_FILES = ("classes.txt", "_darknet.labels", "obj.names", "labels.txt")
#: Of the training images, for validation where there is no val split.
VAL_SHARE = 0.2
#: Sub-folders that are looked through for the images of an annotation file.
_MOST_FOLDERS = 200


def find_data(given: str | Path) -> tuple[DataConfig, str]:
    """How the data set at a path is read, and a line that says what was understood.

    given: a folder, a YOLO data.yaml, a COCO JSON, or a zip of a folder (extracted once). Without a val split one is
    drawn from the training images, always the same. UserError that names what was looked for.
    """
    path = Path(os.path.expanduser(given))
    if not os.path.exists(path):
        names = sorted(file.stem for file in (Path(config_folder()) / "data").glob("*.yaml"))
        raise UserError(f"data={shown(str(given))[1:-1]} is no file or folder, nor one of {', '.join(names)}")
    path = path.resolve()
    suffix = path.suffix.lower()
    if suffix == ".zip":
        folder = extracted(path)
        found = _in_folder(folder)
    elif path.is_dir():
        found = _in_folder(path)
    elif suffix in (".yaml", ".yml"):
        found = _from_yolo_yaml(path)
    elif suffix == ".json":
        found = _from_coco({split: file for split, file in _coco_family(path).items()})
    else:
        raise UserError(f"data={given}: give a folder, a data.yaml, a COCO JSON or a zip of them")
    config, kind, counts = found
    name = re.sub(r"[^\w-]+", "_", path.stem if path.is_file() else path.name).strip("_-")
    if not re.match(r"[^\W\d]", name) or name.lower() in ("null", "true", "false", "nan", "inf"):
        name = f"data_{name}"  # else Hydra reads a number
    config = replace(config, name=name)
    told = [f"{split} {counts[split]} images" for split in SPLITS if split in counts]
    if "val" not in counts and "train" in counts:
        config = replace(config, val_share=VAL_SHARE)
        told.insert(1, f"no val split: {VAL_SHARE:.0%} of train are drawn for it (data.val_seed=0)")
    classes = config.names or config.classes or []
    if "_annotations.coco" in kind or list(Path(config.root or "").glob("README.roboflow*")):
        kind += ", a Roboflow export"
    listed = ", ".join(classes[:8]) + (" ..." if len(classes) > 8 else "")
    known = f"{len(classes)} classes ({listed})" if classes else "classes without names: data.names=[...] gives them"
    return config, f"data: {path} is {kind}: {known}; {', '.join(told)}"


def pictures_of(path: str | Path, split: str = "train") -> list[Path]:
    """The picture files of one split of the data set at a path, or of the split that there is."""
    from nas.data.sources import load_splits

    config, _ = find_data(path)
    splits, _ = load_splits(replace(config, mode="repair", check="labels", val_share=0.0))
    chosen = splits.get(split) or next(iter(splits.values()))
    return [record.path for record in chosen.records]


def extracted(archive: Path) -> Path:
    """The folder of a zip's content, beside it or under outputs/data: extracted once, complete or not at all."""
    with opened_zip(archive) as contents:
        facts = repr([(entry.filename, entry.CRC, entry.file_size) for entry in contents.infolist()])
    name = f"{archive.stem}-{hashlib.blake2b(facts.encode(), digest_size=4).hexdigest()}"
    beside, elsewhere = archive.parent / name, Path("outputs/data").resolve() / name
    done = next((place for place in (beside, elsewhere) if place.is_dir()), None)
    if done is not None:
        return done
    target = beside if os.access(archive.parent, os.W_OK) else elsewhere
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{name}."))
    try:
        unpack(archive, partial)
        partial.chmod(0o755)
        os.replace(partial, target)
    except (OSError, zipfile.BadZipFile) as error:
        if not target.is_dir():  # else another process was faster
            raise UserError(f"{archive} cannot be unpacked: {error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


# ---------------------------------------------------------------------- what a folder holds

#: A configuration without its name, what kind it is, and the images of each split.
Found = tuple[DataConfig, str, dict[str, int]]


def _in_folder(root: Path) -> Found:
    """The one reading of a folder that fits, or of the single folder in it."""
    while True:
        inner = [path for path in root.iterdir() if not path.name.startswith((".", "__MACOSX", "README"))]
        if len(inner) != 1 or not inner[0].is_dir() or inner[0].name == "images" or _split_of(inner[0].name):
            break
        root = inner[0]
    for look in (_look_for_yaml, _look_for_coco, _look_for_voc, _look_for_yolo):
        found = look(root)
        if found is not None:
            return found
    names = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
    csv = "; CSV exports are not read: export COCO, YOLO or Pascal VOC" if list(root.rglob("_annotations.csv")) else ""
    raise UserError(
        f"{root} is no data set that is known: no data.yaml, no COCO JSON, no Pascal VOC .xml, and no YOLO .txt beside or "
        f"under labels/; it holds {names}{csv}"
    )


def _split_of(text: str) -> str | None:
    """The split that a file's or folder's name speaks of (`instances_val2017`), if it does."""
    words = re.findall(r"[a-z]+", text.lower())
    return next((split for split, names in ALIASES.items() if any(word in names for word in words)), None)


def _split_folders(root: Path) -> dict[str, Path]:
    """The sub-folders that are called as splits are."""
    found: dict[str, Path] = {}
    for split, names in ALIASES.items():
        place = next((root / name for name in names if (root / name).is_dir()), None)
        if place is not None:
            found[split] = place
    return found


def _relative(path: Path, root: Path) -> str:
    return os.path.relpath(path, root)


# ---------------------------------------------------------------------- YOLO


def _look_for_yaml(root: Path) -> Found | None:
    named = [root / "data.yaml", root / "dataset.yaml", root / "data.yml"]
    files = [path for path in named if path.is_file()]
    others = [path for path in sorted(root.glob("*.y*ml")) if re.search(r"^names\s*:", read_text(path), re.M)]
    if not files and len(others) > 1:
        raise UserError(f"{root} holds several data files: {', '.join(p.name for p in others[:5])}; give one of them")
    return _from_yolo_yaml((files or others)[0]) if files or others else None


def _from_yolo_yaml(file: Path) -> Found:
    """data.yaml as Ultralytics and Roboflow write it: path, train, val, test (folders, lists of them, or text files that
    list images), names, nc. What else it holds, such as a script to run, is not looked at."""
    document = read_yaml(file)
    if not isinstance(document, dict) or "names" not in document:
        raise UserError(f"{file} is no YOLO data file: a map with train, val and names is needed")
    names = yolo_names(document["names"], file)
    if "nc" in document and document["nc"] != len(names):
        raise UserError(f"{file}: nc is {document['nc']!r}, but there are {len(names)} names; correct one of them")
    base = file.parent / str(document.get("path") or ".")
    places: dict[str, list[Path]] = {}
    lost = []
    for split, aliases in ALIASES.items():
        value = next((document[name] for name in aliases if document.get(name)), None)
        entries = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(entry, str) for entry in entries):
            raise UserError(f"{file}: {split} must be a folder, a text file, or a list of them")
        found = [_existing(entry, (base, file.parent)) for entry in entries]
        if entries and all(found):
            places[split] = [place for place in found if place is not None]
        elif entries:
            lost.append(f"{split}: {entries[found.index(None)]}")
    if not places:
        told = ", ".join(lost) or "no train, val or test"
        raise UserError(f"{file}: {told} is not there; paths are meant from {base}, or correct them")
    return _yolo(file.parent, places, names, f"YOLO ({file.name}{''.join(f', {text} is not there' for text in lost)})")


def _existing(entry: str, bases: tuple[Path, ...]) -> Path | None:
    """A path of data.yaml: from `path`, from the file's folder, or without the leading ../ that Roboflow writes."""
    stripped = re.sub(r"^(\.\./)+", "", entry)
    tries = [base / text for text in (entry, stripped) for base in bases]
    return next((path.resolve() for path in tries if path.exists()), None)


def _look_for_yolo(root: Path) -> Found | None:
    """Images with text files beside them or under labels/, in one folder or in one a split."""
    images = root / "images"
    whole = images if images.is_dir() else root
    places = _split_folders(images) or _split_folders(root) or {"train": whole}
    first = (path for place in places.values() for path in pictures_in(place)[:50])
    if not any(label_file(path).is_file() for path in first):
        return None
    candidates = (folder / name for folder in (root, root / "labels", *places.values()) for name in NAME_FILES)
    named = next((path for path in candidates if path.is_file()), None)
    lines = [line.strip() for line in read_text(named).splitlines() if line.strip()] if named else []
    told = named.name if named else "no file names the classes"
    return _yolo(root, {split: [place] for split, place in places.items()}, lines, f"YOLO ({told})")


def _yolo(root: Path, places: Mapping[str, list[Path]], names: list[str], kind: str) -> Found:
    counts = {split: sum(len(pictures_in(place)) for place in paths) for split, paths in places.items()}
    splits: dict[str, Any] = {}
    for split in (split for split, count in counts.items() if count):
        first, *more = (_relative(place, root) for place in places[split])
        splits[split] = Split(first, more=more)
    if not splits:
        raise UserError(f"{root}: no images in {', '.join(str(p) for paths in places.values() for p in paths)}")
    config = DataConfig(format="yolo", root=str(root), names=names or None, **splits)
    return config, kind, {split: count for split, count in counts.items() if count}


# ---------------------------------------------------------------------- COCO


def _look_for_coco(root: Path) -> Found | None:
    folders = [root, root / "annotations", root / "Annotations", *_split_folders(root).values()]
    files = [
        path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*.json")) if _looks_coco(path)
    ]
    instances = [path for path in files if path.name.startswith("instances")]  # beside captions and key points
    grouped: dict[str, list[Path]] = {}
    for path in instances or files:
        split = _split_of(path.stem) or (_split_of(path.parent.name) if path.parent != root else None)
        grouped.setdefault(split or "", []).append(path)
    alone = grouped.pop("", [])
    if not grouped and alone:
        grouped = {"train": alone}
    for split, paths in grouped.items():
        if len(paths) > 1:
            told = ", ".join(_relative(path, root) for path in paths[:5])
            raise UserError(f"{root}: several COCO files could be the {split} split: {told}; give one: data={paths[0]}")
    return _from_coco({split: paths[0] for split, paths in grouped.items()}) if grouped else None


def _looks_coco(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(1 << 16)
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and any(
        f'"{key}"'.encode() in head for key in ("images", "annotations", "categories", "info")
    )


def _coco_family(file: Path) -> dict[str, Path]:
    """A COCO file and those beside it that are called alike for the other splits."""
    in_name = _split_of(file.stem)
    own = in_name or _split_of(file.parent.name)
    if own is None:
        return {"train": file}
    found = {own: file}
    for split, aliases in ALIASES.items():
        for alias in aliases:
            text = file.stem if in_name else file.parent.name
            other = re.sub("|".join(sorted(ALIASES[own], key=len, reverse=True)), alias, text, count=1, flags=re.I)
            path = file.with_name(other + file.suffix) if in_name else file.parent.parent / other / file.name
            if split != own and path.is_file():
                found.setdefault(split, path)
    return found


def _from_coco(files: Mapping[str, Path]) -> Found:
    root = Path(os.path.commonpath([path.parent for path in files.values()]))
    splits: dict[str, Any] = {}
    counts: dict[str, int] = {}
    names: list[str] = []
    for split in (split for split in SPLITS if split in files):
        path = files[split]
        document = coco_document(path)
        names = names or _without_super(document, path)
        images = _image_folder(path, split, document["images"])
        splits[split] = Split(_relative(images, root), _relative(path, root))
        counts[split] = len(document["images"])
    config = DataConfig(format="coco", root=str(root), classes=names, **splits)
    return config, f"COCO ({', '.join(_relative(path, root) for path in files.values())})", counts


def _without_super(document: Mapping[str, list[Any]], path: Path) -> list[str]:
    """The classes of a COCO file without the group that Roboflow puts before them as a class without boxes."""
    classes = coco_classes(document, path)
    groups = {c["id"]: c.get("supercategory") for c in document["categories"]}
    first = min(classes)
    used = any(isinstance(entry, dict) and entry.get("category_id") == first for entry in document["annotations"])
    group = groups.pop(first) in ("none", None) and groups and set(groups.values()) == {classes[first]}
    return [name for key, name in classes.items() if used or not group or key != first]


def _image_folder(file: Path, split: str, entries: list[Any]) -> Path:
    """The folder in which the first images of a COCO file lie; the one that is called as the split before others."""
    named = [e["file_name"] for e in entries[:20] if isinstance(e, dict) and isinstance(e.get("file_name"), str)]
    if not named or any("\0" in name for name in named):
        raise UserError(f"{file}: `images` lists no picture by `file_name`")
    places = list(dict.fromkeys(_near(file, split)))
    for enough in (len(named), 1):
        for place in places:
            if sum((place / name).is_file() for name in named) >= enough:
                return place
    raise UserError(
        f"{file}: its images (the first is {named[0][:80]}) are not beside it nor in the folders around; "
        "data=custom data.root=... data.train.images=... tells where they are"
    )


def _near(file: Path, split: str) -> Iterator[Path]:
    around: list[Path] = []
    for base in (file.parent, file.parent.parent):
        around += [base, *sorted(path for path in base.iterdir() if path.is_dir())[:_MOST_FOLDERS]]
        if (base / "images").is_dir():
            around += sorted(path for path in (base / "images").iterdir() if path.is_dir())[:_MOST_FOLDERS]
    called = [path for path in around if path.name in file.stem and path != file.parent.parent]
    yield from (path for path in called if _split_of(path.name) == split)
    yield from (path for path in around if _split_of(path.name) == split)
    yield from (path for path in around if _split_of(path.name) is None)
    yield from around


# ---------------------------------------------------------------------- Pascal VOC


def _look_for_voc(root: Path) -> Found | None:
    """VOC's own folders with their lists; one folder of images and XML; or such folders a split."""
    pairs: dict[str, tuple[Path, Path]] = {}
    for folder in (root / "Annotations", root / "annotations", root / "xmls", root / "labels", root):
        if folder.is_dir() and any(folder.glob("*.xml")):
            pairs["train"] = (_voc_images(root, folder), folder)
            break
        inner = _split_folders(folder) if folder.is_dir() else {}
        for split, place in inner.items():
            for files in (place, place / "Annotations", place / "annotations"):
                if files.is_dir() and any(files.glob("*.xml")):
                    pairs.setdefault(split, (_voc_images(root, files, split), files))
        if pairs:
            break
    if not pairs:
        return None
    lists = {name: root / "ImageSets/Main" / f"{name}.txt" for name in ("train", "val", "test", "trainval")}
    lists = {name: path for name, path in lists.items() if path.is_file()}
    if lists.get("trainval") and "train" not in lists:
        lists["train"] = lists["trainval"]
    lists.pop("trainval", None)
    if lists and set(pairs) == {"train"}:
        pairs = {split: pairs["train"] for split in lists}
    every = {split: voc_files(pair[1], lists.get(split)) for split, pair in pairs.items()}
    every = {split: [path for path in paths if path.is_file()] for split, paths in every.items()}
    splits: dict[str, Any] = {
        split: Split(
            _relative(images, root),
            _relative(xml, root),
            listed=_relative(lists[split], root) if split in lists else None,
        )
        for split, (images, xml) in pairs.items()
        if every[split]
    }
    names = voc_classes([path for paths in every.values() for path in paths])
    if not names:
        raise UserError(f"{root}: the .xml files name no object; are they Pascal VOC annotations?")
    config = DataConfig(format="voc", root=str(root), names=names, **splits)
    return config, "Pascal VOC", {split: len(every[split]) for split in splits}


def _voc_images(root: Path, files: Path, split: str = "train") -> Path:
    """The folder with the picture of the first XML file."""
    stem = next(iter(sorted(files.glob("*.xml")))).stem
    near = [
        files,
        files.parent / "images",
        root / "JPEGImages",
        root / "images" / files.name,
        root / "images",
        root / "Images",
    ]
    near += [root / "images" / split, files.parent, root]
    for place in near:
        if place.is_dir() and any((place / f"{stem}{suffix}").is_file() for suffix in _SUFFIXES):
            return place
    raise UserError(f"{files / stem}.xml: its picture {stem}.jpg is in none of {', '.join(str(p) for p in near[:5])}")


_SUFFIXES = [spelt for suffix in sorted(IMAGE_SUFFIXES) for spelt in (suffix, suffix.upper())]
