"""Hand-drawn detectors, built from their published descriptions: what a searched backbone is compared with.

Here they are by name: canonical names, official spellings as aliases, and their construction.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nas.errors import UserError
from nas.spec import USUAL_SIDE, require_side

if TYPE_CHECKING:
    from nas.models.base import DetectorModule
    from nas.models.baselines.graph import BaselineDetector

YOLO_SIZES = ("n", "s", "m", "l", "x")
#: Families whose size is two multipliers.
SCALABLE = ("yolov5", "yolov8", "yolo11", "yolo26")
YOLOV9_SIZES = ("t", "s", "m", "c", "e")
RTDETR_SIZES = ("s", "m", "l", "x")
#: Families made of the parts of `transformers`: the module that builds them, and their sizes.
DETR_FAMILIES = {
    "d-fine": ("dfine", ("n", "s", "m", "l", "x")),
    "deimv2": ("deimv2", ("atto", "femto", "pico", "n", "s", "m", "l", "x")),
    "lw-detr": ("lwdetr", ("t", "s", "m", "l", "x")),
    "rf-detr": ("rfdetr", ("n", "s", "m")),
}

#: Canonical names. yolov9*: as published; `-u`: with the Ultralytics head; `-pgi`: with the auxiliary training branch;
#: yolov9t-repo: T with the class width of its repository's current file.
BASELINES: tuple[str, ...] = (
    *(f"yolov5{size}" for size in YOLO_SIZES),
    "yolov7",
    "yolov7x",
    *(f"yolov8{size}" for size in YOLO_SIZES),
    *(f"yolov9{size}" for size in YOLOV9_SIZES),
    "yolov9t-repo",
    *(f"yolov9{size}-u" for size in YOLOV9_SIZES),
    *(f"yolov9{size}-pgi" for size in YOLOV9_SIZES),
    "yolov9t-repo-pgi",
    *(f"yolo11{size}" for size in YOLO_SIZES),
    *(f"yolo26{size}" for size in YOLO_SIZES),
    *(f"rtdetrv2-{size}" for size in RTDETR_SIZES),
    *(f"{name}-{size}" for name, (_, sizes) in DETR_FAMILIES.items() for size in sizes),
)

_SPELLINGS = (
    (r"yolov5([nsmlx])u", r"yolov5\1"),
    (r"yolov7-?x", "yolov7x"),
    (r"yolov9-([tsmce])", r"yolov9\1"),
    (r"yolov9-t-published|yolov9t-published", "yolov9t"),
    (r"gelan-t", "yolov9t-repo"),
    (r"gelan-([smce])", r"yolov9\1"),
    (r"yolov11([nsmlx])", r"yolo11\1"),
    (r"yolov26([nsmlx])", r"yolo26\1"),
    (r"rt-?detrv2-?([smlx])", r"rtdetrv2-\1"),
    (r"d-?fine-?(?:hgnetv2-)?([a-z]+)(?:-coco)?", r"d-fine-\1"),
    (r"deimv2-?(?:hgnetv2-|dinov3-)?([a-z]+)(?:-coco)?", r"deimv2-\1"),
    (r"lw-?detr-?([a-z]+)(?:-60e)?(?:-coco)?", r"lw-detr-\1"),
    (r"rf-?detr-?([a-z]+)", r"rf-detr-\1"),
)
#: Sizes written out in the official spellings of the families above.
_WORDS = {"nano": "n", "tiny": "t", "small": "s", "medium": "m", "large": "l", "xlarge": "x"}


def canonical_name(name: str) -> str | None:
    """The canonical name of an official spelling (`yolov5nu`, `gelan-c`, `RT-DETRv2-S` ...), or None if unknown.

    `yolo11n@0.3` is YOLO11n with the width multiplier 0.3 in the place of its own; likewise YOLOv5, YOLOv8 and YOLO26.
    """
    key = name.strip().lower().replace("_", "-").replace(" ", "")
    if key in BASELINES:
        return key
    if "@" in key:
        known, width = canonical_name(key.partition("@")[0]), key.partition("@")[2]
        scalable = known is not None and known[:-1] in SCALABLE and re.fullmatch(r"[0-3](\.\d{1,4})?", width)
        return f"{known}@{float(width):g}" if scalable and float(width) > 0 else None
    for pattern, replacement in _SPELLINGS:
        if re.fullmatch(pattern, key):
            known, _, size = re.sub(pattern, replacement, key).rpartition("-")
            found = f"{known}-{_WORDS.get(size, size)}" if known in DETR_FAMILIES else re.sub(pattern, replacement, key)
            return found if found in BASELINES else None
    return None


def family(name: str) -> str:
    """The module of this package that draws a canonical name."""
    known = name.rpartition("-")[0]
    if known in DETR_FAMILIES:
        return DETR_FAMILIES[known][0]
    return next((module for module in ("yolov7", "yolov9", "rtdetrv2") if name.startswith(module)), "yolo")


def build_baseline(
    name: str, num_classes: int = 80, image_size: int | None = None, classes: Sequence[str] | None = None
) -> DetectorModule:
    """The hand-drawn detector `name` with untrained weights, in training mode.

    image_size: side in pixels, the published one unless told (640 for most). Raises UserError for an unknown name, an image
    side that is no multiple of 32 or that the network cannot see, or class names that do not fit.
    """
    key = canonical_name(name)
    if key is None:
        near = difflib.get_close_matches(name.lower(), BASELINES, 3, 0.4)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UserError(f"no baseline is called {name!r}{hint}")
    from nas.models.base import class_names

    if image_size is not None:
        require_side(image_size)
    if num_classes < 1:
        raise UserError(f"num_classes must be at least 1, got {num_classes}")
    names = class_names(num_classes, classes)
    if key.startswith("rtdetrv2-"):
        from nas.models.baselines.rtdetrv2 import RTDETRv2

        return RTDETRv2(key, USUAL_SIDE if image_size is None else image_size, names)
    if key.rpartition("-")[0] in DETR_FAMILIES:
        return _of_transformers(key, image_size, names)
    return _from_rows(key, USUAL_SIDE if image_size is None else image_size, names)


def _of_transformers(name: str, image_size: int | None, classes: tuple[str, ...]) -> DetectorModule:
    from nas.models.baselines.deimv2 import build as deimv2
    from nas.models.baselines.dfine import build as dfine
    from nas.models.baselines.lwdetr import build as lwdetr
    from nas.models.baselines.rfdetr import build as rfdetr

    builders = {"dfine": dfine, "deimv2": deimv2, "lwdetr": lwdetr, "rfdetr": rfdetr}
    return builders[family(name)](name, image_size, classes)


def _from_rows(name: str, image_size: int, classes: tuple[str, ...]) -> BaselineDetector:
    from nas.models.baselines.graph import BaselineDetector

    num_classes = len(classes)
    if name.startswith("yolov9"):
        from nas.models.baselines.yolov9 import yolov9_graph

        size, *variants = name.removeprefix("yolov9").split("-")
        graph, backbone = yolov9_graph(size, num_classes, "u" in variants, "repo" in variants, "pgi" in variants)
    elif name.startswith("yolov7"):
        from nas.models.baselines.yolov7 import yolov7_graph

        graph, backbone = yolov7_graph(name, num_classes)
    else:
        from nas.models.baselines.yolo import yolo_graph

        drawing, _, width = name.partition("@")
        graph, backbone = yolo_graph(drawing[:-1], drawing[-1], num_classes, float(width) if width else None)
    return BaselineDetector(name, graph, backbone, image_size, classes, name.startswith("yolo26"))
