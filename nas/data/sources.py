"""Where a data set lies and how it is read, and from that to checked splits: the door through which training and evaluation
get their data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import MinLen

from nas.data.coco import read_coco
from nas.data.dataset import DetectionData, Problem, relabel
from nas.data.report import DataReport, inspect_data, repair_data, require_sound
from nas.data.shapes import draw_shapes
from nas.data.voc import read_voc, voc_classes
from nas.data.yolo_text import read_yolo, yolo_classes
from nas.errors import UserError
from nas.files import read_text
from nas.options import Count, Name, OneOf, Resize, Seed, Share, check_object

SPLITS = ("train", "val", "test")


@dataclass
class Split:
    """Paths relative to the root. COCO: annotations is a JSON file; YOLO: a folder of .txt files (default: the image
    path with `images` replaced by `labels`), and images, like each of `more`, may be a text file that lists images; VOC: a
    folder of .xml files, of which `listed`, a text file, may name some."""

    images: Name | None = None
    annotations: Name | None = None
    more: list[Name] = field(default_factory=list)
    listed: Name | None = None


@dataclass
class Download:
    """An archive that belongs to a data set: http, https or file URL, `md5:...` or `sha256:...` or null."""

    url: str = ""
    checksum: Name | None = None


@dataclass
class DataConfig:
    """One data set; a split without paths does not exist.

    mode: strict stops at a broken label or image, repair drops or clips it and says so. check: full decodes and hashes
    every image before a training, labels looks at the annotations alone.
    """

    name: Name = "custom"
    format: Annotated[str, OneOf("coco", "yolo", "voc", "shapes")] = "coco"  # shapes: drawn at first use
    root: Name | None = None  # default: the first of ./data/NAME and ../shared/data/NAME that exists
    train: Split = field(default_factory=Split)
    val: Split = field(default_factory=Split)
    test: Split = field(default_factory=Split)
    resize: Resize | None = (
        None  # to the input: stretch, letterbox (with grey beside it) or rectangle (so, with little); None: the model's own
    )
    classes: Annotated[list[Name], MinLen(1)] | None = (
        None  # a subset or another order; default: all of the training annotations
    )
    num_classes: Count | None = None  # only checked: an error if the data has another number
    names: list[Name] | None = None  # YOLO and VOC: the classes by number, where no file of the root says them
    val_share: Share = 0.0  # of the training images, drawn by val_seed for validation where there is no val split
    val_seed: Seed = 0
    mode: Annotated[str, OneOf("strict", "repair")] = "strict"
    check: Annotated[str, OneOf("full", "labels")] = "full"
    download: list[Download] = field(default_factory=list)  # what `python -m nas.data action=fetch` gets
    layout: Name = "as_is"  # of the archives: as_is, or a set of nas/data/annotated, whose annotations are ours


def load_splits(config: DataConfig, wanted: tuple[str, ...] = SPLITS) -> tuple[dict[str, DetectionData], DataReport]:
    """The wanted splits that the configuration has, with one list of classes, checked or repaired, and the report.

    Classes are data.classes, else those of the first split that is read (the training one); other
    splits are matched by name. UserError, before anything long: missing root, file or split, unknown class, another
    number of classes than data.num_classes, and in strict mode any broken label or image.
    """
    check_object(config, "data")
    root = data_root(config)
    names = list(config.classes) if config.classes else None
    splits: dict[str, DetectionData] = {}
    problems: list[Problem] = []
    whole: DetectionData | None = None  # the training images, where some of them are drawn for validation
    drawn = bool(config.val_share) and not (config.val.images or config.val.annotations)
    for split in SPLITS:
        paths: Split = getattr(config, "train" if drawn and split == "val" else split)
        if split not in wanted or not (paths.images or paths.annotations):
            continue
        if whole is None or split == "test":
            data, found = _read(config, root, split, paths)
            problems += found
        if drawn and split != "test":
            whole = whole or data
            data = hold_out(whole, split, config.val_share, config.val_seed)
            if split == "val":
                told = f"{len(data)} of {len(whole)} training images, seed {config.val_seed}"
                problems.append(Problem("drawn validation split", told, warning=True))
        names = names or list(data.classes)
        splits[split] = relabel(data, names)
    if not splits:
        raise UserError(
            f"data {config.name}: none of the splits {', '.join(wanted)} has paths; set data.train.images ..."
        )
    if config.num_classes is not None and config.num_classes != len(names or ()):
        raise UserError(
            f"data.num_classes={config.num_classes}, but {config.name} has {len(names or ())} classes: "
            f"{', '.join((names or [])[:10])}; leave num_classes out or correct the annotations"
        )
    report = inspect_data(splits, problems, images=config.check == "full")
    if config.mode == "strict":
        require_sound(report)
        return splits, report
    return repair_data(splits, report), report


def hold_out(data: DetectionData, split: str, share: float, seed: int) -> DetectionData:
    """The training images without those that are drawn for validation, or (split="val") these.

    Copies that an exporter made of one picture (Roboflow: NAME.rf.HASH.jpg) stay together. UserError for one picture.
    """
    origin = [record.path.name.partition(".rf.")[0] for record in data.records]
    pictures = sorted(set(origin))
    if len(pictures) < 2:
        raise UserError(f"{data.name}: no val split, and none can be drawn from {len(pictures)} training images")
    count = min(max(1, round(share * len(pictures))), len(pictures) - 1)
    held = {pictures[i] for i in np.random.default_rng(seed).permutation(len(pictures))[:count]}
    chosen = [i for i, name in enumerate(origin) if (name in held) == (split == "val")]
    return replace(data.subset(chosen), split=split)


def data_root(config: DataConfig) -> Path:
    """The folder of a data set: data.root, or the first of ./data/NAME and ../shared/data/NAME that exists."""
    if config.root:
        root = Path(config.root).expanduser()
        if config.format != "shapes" and not root.is_dir():
            raise UserError(f"data.root={root}: no such folder")
        return root
    places = [Path("data") / config.name, Path("../shared/data") / config.name]
    found = next((place for place in places if place.is_dir()), None)
    if found is not None:
        return found
    if config.format == "shapes":
        return places[0]
    raise UserError(
        f"data {config.name} is not here: neither {places[0]} nor {places[1]} exists; set data.root=FOLDER, or see "
        "`python -m nas.data` for where it comes from"
    )


def _read(config: DataConfig, root: Path, split: str, paths: Split) -> tuple[DetectionData, list[Problem]]:
    if config.format == "shapes":
        draw_shapes(root)
    places = [root / place for place in (paths.images, *paths.more) if place]
    missing = next((place for place in places if not place.exists()), None)
    if missing is not None:
        raise UserError(f"{config.name} {split}: no image folder {missing}")
    if config.format == "yolo":
        if not places:
            raise UserError(f"data.{split}.images is missing: the folder of the images")
        classes = config.names or yolo_classes(root, config.classes)
        labels = root / paths.annotations if paths.annotations else None
        if labels is not None and not labels.is_dir():
            raise UserError(f"{config.name} {split}: no label folder {labels}")
        return read_yolo(places, classes, labels, config.name, split)
    if config.format == "voc":
        if not places or not paths.annotations:
            raise UserError(
                f"data.{split}.images and data.{split}.annotations are needed: folders of images and of XML"
            )
        files = voc_files(root / paths.annotations, root / paths.listed if paths.listed else None)
        return read_voc(places[0], files, config.names or voc_classes(files), config.name, split)
    if not paths.annotations:
        raise UserError(f"data.{split}.annotations is missing: the COCO JSON file")
    annotations = root / paths.annotations
    if not annotations.is_file():
        raise UserError(f"{config.name} {split}: no annotation file {annotations}")
    images = places[0] if places else root / "images"
    if not images.is_dir():
        raise UserError(f"{config.name} {split}: no image folder {images}")
    return read_coco(annotations, images, config.name, split)


def voc_files(folder: Path, listed: Path | None = None) -> list[Path]:
    """The XML files of a folder, or those that the first words of a text file's lines name; UserError without any."""
    if listed is not None:
        stems = [line.split()[0] for line in read_text(listed).splitlines() if line.strip()]
        return [folder / f"{Path(stem).name}.xml" for stem in stems]
    files = sorted(folder.glob("*.xml"))
    if not files:
        raise UserError(f"no XML file in {folder}")
    return files
