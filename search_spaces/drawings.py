"""Backbones that people drew, published ones and well-known shapes, and their scaling to what they may cost.

A chain is written as `stem out/bottleneck x depth ...`, for example `24 64/24x2 96/64x2 192/96x2 192/152x2 384/192x1`:
five k1kx blocks with strides 2, 2, 2, 1, 2 behind a Focus stem, deployed as DAMO-YOLO does (SPP, no shortcut at
stride 2). Any backbone or detector is scaled: widths by one factor, then single widths until the cost is met.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from nas.errors import UserError
from nas.spec import Backbone, Block, DetectorSpec, Residual, Stem, attention_heads, backbone_of
from search_spaces.published import load_published

STRIDES = (2, 2, 2, 1, 2)
OUT_BLOCKS = (1, 3, 4)

#: DAMO-YOLO's backbones as chains of k1kx blocks.
PUBLISHED = {
    "damo-t": "24 64/24x2 96/64x2 192/96x2 192/152x2 384/192x1",
    "damo-s": "32 128/24x1 128/88x5 256/128x3 256/120x2 512/144x1",
    "tinynas-start": "32 48/32x1 96/48x1 96/96x1 192/96x1 384/192x1",
    "damo-nano": "16 40/32x1 64/48x2 96/64x2 128/96x2 256/128x1",
}
#: Drawings after well-known networks, and shapes that lie far apart.
DRAWN = {
    "resnet18": "32 64/64x2 128/128x2 256/256x1 256/256x1 512/512x2",
    "resnet34": "32 64/64x3 128/128x4 256/256x3 256/256x3 512/512x3",
    "darknet53": "32 64/32x1 128/64x2 256/128x4 256/128x4 512/256x4",
    "pyramid": "16 32/32x1 64/64x2 128/128x2 128/128x2 256/256x4",
    "inverse-pyramid": "32 96/96x4 128/128x3 192/192x1 192/192x1 256/256x1",
    "even-1": "32 64/64x1 128/128x1 256/256x1 256/256x1 512/512x1",
    "even-3": "32 64/48x3 128/96x3 192/144x3 192/144x3 384/288x3",
    "even-5": "32 64/40x5 64/64x5 192/192x5 192/192x5 384/384x5",
    "constant-width": "64 128/128x1 128/128x2 128/128x2 128/128x2 128/128x2",
    "wide-early": "64 128/128x2 160/160x2 192/192x1 192/192x1 224/224x1",
    "thin-bottleneck": "32 128/16x3 256/32x3 384/48x3 384/48x3 512/64x3",
    "fat-bottleneck": "32 48/48x1 64/64x2 96/96x2 96/96x2 128/128x2",
    "deep-c3": "32 64/48x1 96/96x8 128/96x1 128/96x1 256/128x1",
    "deep-c4": "32 64/48x1 96/64x1 160/128x5 160/128x5 256/128x1",
    "deep-c5": "32 64/48x1 96/64x1 128/96x1 128/96x1 320/256x8",
    "deep-stride4": "32 64/48x6 96/64x1 160/128x1 160/128x1 320/192x1",
}
#: Published backbones of other families, which are no chains.
FAMILIES = {
    "yolo11-n": "yolo11-n-backbone",
    "yolo11-s": "yolo11-s-backbone",
    "yolov9-t": "yolov9-t-backbone",
    "yolov9-s": "yolov9-s-backbone",
    "damo-m": "damo-yolo-m",
}


def hand_drawn() -> dict[str, Backbone]:
    """Every backbone of this module by name, unscaled: published chains, drawings, then the other families."""
    found = {name: backbone_of_text(text) for name, text in (PUBLISHED | DRAWN).items()}
    for name, published in FAMILIES.items():
        found[name] = backbone_of(load_published(published))
    return found


def backbone_of_text(text: str) -> Backbone:
    """The backbone of a shape text; UserError for anything else."""
    stem, *tokens = text.split()
    found = [re.fullmatch(r"(\d+)/(\d+)x(\d+)", token) for token in tokens]
    if not stem.isdigit() or len(found) != len(STRIDES) or any(match is None for match in found):
        raise UserError(f"not a shape `stem out/bottleneckxdepth ...` of five blocks: {text!r}")
    rows = [tuple(map(int, match.groups())) for match in found if match]
    return backbone_of_shape(int(stem), [(out, mid, depth) for out, mid, depth in rows])


def backbone_of_shape(stem: int, shape: list[tuple[int, int, int]]) -> Backbone:
    """The chain of a stem's width and (out, bottleneck, depth) of its five blocks."""
    blocks = tuple(Residual("k1kx", o, b, d, s) for (o, b, d), s in zip(shape, STRIDES, strict=True))
    return Backbone(Stem("focus", stem), blocks, OUT_BLOCKS, "spp", reparam=True)


def text_of(backbone: Backbone) -> str:
    """The shape text of a chain."""
    blocks = [block for block in backbone.blocks if isinstance(block, Residual)]
    return " ".join([str(backbone.stem.out), *(f"{block.out}/{block.bottleneck}x{block.depth}" for block in blocks)])


AnySpec = TypeVar("AnySpec", Backbone, DetectorSpec)

#: Fields of a block that are widths, where it has them.
WIDTHS = ("out", "bottleneck", "hidden", "entry", "inner")
#: Widths are multiples of this.
STEP = 8
#: Stems stay this narrow, whatever the factor.
WIDEST_STEM = 64


def scaled(spec: AnySpec, factor: float) -> AnySpec:
    """All widths of backbone and neck times a factor, in multiples of 8; depths, strides and head stay.

    In front of an attention block a width is raised to the next that its heads divide.
    """

    def width(value: int) -> int:
        return max(STEP, STEP * round(value * factor / STEP))

    if isinstance(spec, DetectorSpec):
        o3, o4, o5 = spec.neck.out
        neck = replace(spec.neck, out=(width(o3), width(o4), width(o5)))
        return replace(spec, backbone=scaled(spec.backbone, factor), neck=neck)
    blocks = spec.blocks
    for index, block in enumerate(blocks):
        blocks = _resized(blocks, index, {name: width(getattr(block, name)) for name in _widths(block)}, STEP)
    return replace(spec, stem=replace(spec.stem, out=min(WIDEST_STEM, width(spec.stem.out))), blocks=blocks)


def fit_to_cost(
    spec: AnySpec, cost: Callable[[AnySpec], float], target: float, tolerance: float = 0.01, widest: int = 1024
) -> AnySpec | None:
    """The spec with its widths scaled until cost(spec) is within the share `tolerance` of `target`.

    One factor for all widths first, by bisection; then up to six moves of a single width by 8. None where no width
    reaches the target: too deep, or wider than `widest` channels. cost: any number that grows with the widths, such as
    milliseconds of the whole detector.
    """
    low, high, best = 0.1, 16.0, spec
    for _ in range(9):
        middle = (low * high) ** 0.5
        candidate = scaled(spec, middle)
        value = cost(candidate)
        if abs(value - target) < abs(cost(best) - target):
            best = candidate
        low, high = (middle, high) if value < target else (low, middle)
    for _ in range(6):
        if abs(cost(best) / target - 1) <= tolerance:
            backbone = backbone_of(best)
            return best if max(block.out for block in backbone.blocks) <= widest else None
        best = min(neighbours(best), key=lambda item: abs(cost(item) - target))
    return None


def neighbours(spec: AnySpec) -> Iterator[AnySpec]:
    """Every spec with one width of a block, or of the neck, changed by 8 (more in front of an attention block)."""
    if isinstance(spec, DetectorSpec):
        yield from (replace(spec, backbone=backbone) for backbone in neighbours(spec.backbone))
        for level in range(3):
            for step in (-STEP, STEP):
                out = list(spec.neck.out)
                out[level] = max(STEP, out[level] + step)
                yield replace(spec, neck=replace(spec.neck, out=(out[0], out[1], out[2])))
        return
    for index, block in enumerate(spec.blocks):
        for step in (-STEP, STEP):
            for name in _widths(block):
                value = max(STEP, getattr(block, name) + step)
                yield replace(spec, blocks=_resized(spec.blocks, index, {name: value}, step))


def _widths(block: Block) -> list[str]:
    """Fields of a block that can be changed for themselves: an attention block has its input's width."""
    return [] if block.keeps_width else [name for name in WIDTHS if hasattr(block, name)]


def _resized(blocks: tuple[Block, ...], index: int, widths: dict[str, int], step: int) -> tuple[Block, ...]:
    """The blocks with other widths at `index`; attention blocks behind it take its output, moved by `step` to fit."""
    behind = index + 1
    while behind < len(blocks) and blocks[behind].keeps_width:
        behind += 1
    if "out" in widths and behind > index + 1:
        out = widths["out"]
        while out // 2 % attention_heads(out // 2):
            out += step
        widths = widths | {"out": out}
    changed = replace(blocks[index], **widths)  # type: ignore[arg-type]
    followers = (replace(block, out=changed.out) for block in blocks[index + 1 : behind])
    return (*blocks[:index], changed, *followers, *blocks[behind:])
