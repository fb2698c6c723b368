"""Where a data set lies and how it is read, and what `python -m nas.data` is told: plain dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Split:
    """Paths relative to the root. COCO: annotations is a JSON file; YOLO: a folder of .txt files (default: the image
    folder with `images` replaced by `labels`)."""

    images: str | None = None
    annotations: str | None = None


@dataclass
class Download:
    """An archive that belongs to a data set: http, https or file URL, `md5:...` or `sha256:...` or null."""

    url: str = ""
    checksum: str | None = None


@dataclass
class DataConfig:
    """One data set; a split without paths does not exist."""

    name: str = "custom"
    format: str = "coco"  # coco, yolo, or shapes (drawn at first use)
    root: str | None = None  # default: the first of ./data/NAME and ../shared/data/NAME that exists
    train: Split = field(default_factory=Split)
    val: Split = field(default_factory=Split)
    test: Split = field(default_factory=Split)
    classes: list[str] | None = None  # a subset or another order; default: all of the training annotations
    num_classes: int | None = None  # only checked: an error if the data has another number
    mode: str = "strict"  # strict: a broken label or image stops; repair: it is dropped or clipped, and reported
    check: str = "full"  # full: every image is decoded and hashed before training; labels: annotations only
    download: list[Download] = field(default_factory=list)  # what `python -m nas.data action=fetch` gets
    layout: str = "as_is"  # of the archives: as_is, or a set of nas/detection/annotated, whose annotations are ours


@dataclass
class DataCommand:
    """action: check, convert or fetch; `to` and `output` belong to convert, `output` also to fetch."""

    data: DataConfig = field(default_factory=DataConfig)
    action: str = "check"
    to: str = "yolo"
    output: str | None = None
