"""Scales any backbone or detector to what it may cost: widths by one factor, then single widths until the cost is met."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from nas.spec import C2PSA, Backbone, Block, DetectorSpec, attention_heads, backbone_of

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
        if not isinstance(block, C2PSA):
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
    return [] if isinstance(block, C2PSA) else [name for name in WIDTHS if hasattr(block, name)]


def _resized(blocks: tuple[Block, ...], index: int, widths: dict[str, int], step: int) -> tuple[Block, ...]:
    """The blocks with other widths at `index`; attention blocks behind it take its output, moved by `step` to fit."""
    behind = index + 1
    while behind < len(blocks) and isinstance(blocks[behind], C2PSA):
        behind += 1
    if "out" in widths and behind > index + 1:
        out = widths["out"]
        while out // 2 % attention_heads(out // 2):
            out += step
        widths = widths | {"out": out}
    changed = replace(blocks[index], **widths)  # type: ignore[arg-type]
    followers = (replace(block, out=changed.out) for block in blocks[index + 1 : behind])
    return (*blocks[:index], changed, *followers, *blocks[behind:])
