"""Where a data set lies and how it is read, and what `python -m nas.data` is told: plain dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import MinLen

from nas.options import Count, Name, OneOf


@dataclass
class Split:
    """Paths relative to the root. COCO: annotations is a JSON file; YOLO: a folder of .txt files (default: the image
    folder with `images` replaced by `labels`)."""

    images: Name | None = None
    annotations: Name | None = None


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
    format: Annotated[str, OneOf("coco", "yolo", "shapes")] = "coco"  # coco, yolo, or shapes (drawn at first use)
    root: Name | None = None  # default: the first of ./data/NAME and ../shared/data/NAME that exists
    train: Split = field(default_factory=Split)
    val: Split = field(default_factory=Split)
    test: Split = field(default_factory=Split)
    classes: Annotated[list[Name], MinLen(1)] | None = (
        None  # a subset or another order; default: all of the training annotations
    )
    num_classes: Count | None = None  # only checked: an error if the data has another number
    mode: Annotated[str, OneOf("strict", "repair")] = "strict"
    check: Annotated[str, OneOf("full", "labels")] = "full"
    download: list[Download] = field(default_factory=list)  # what `python -m nas.data action=fetch` gets
    layout: Name = "as_is"  # of the archives: as_is, or a set of nas/data/annotated, whose annotations are ours


@dataclass
class DataCommand:
    """action: check, convert or fetch; `to` and `output` belong to convert, `output` also to fetch."""

    data: DataConfig = field(default_factory=DataConfig)
    action: Annotated[str, OneOf("check", "convert", "fetch")] = "check"
    to: Annotated[str, OneOf("coco", "yolo")] = "yolo"
    output: Name | None = None
