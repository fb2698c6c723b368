"""YOLO11's C3k2 stages and C2PSA attention blocks; always SiLU, as published.

Convolutions off the longest path of a block have the role "skip", so that depth-reading scores see that path alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nas.blocks.base import Block, Size, require_block, require_flag, require_positive
from nas.blocks.operation import SILU, Operation, convolution, halved, pointwise, split
from nas.errors import SpecError

#: Bottlenecks inside one C3k unit.
C3K_DEPTH = 2


@dataclass(frozen=True, slots=True)
class C3k2(Block):
    """YOLO11 stage: a 3x3 stride-2 convolution to `entry` channels, then C3k2 with `depth` units of width `hidden`."""

    module: ClassVar[str] = "nas.models.baselines.blocks:C3k2Stage"

    out: int
    entry: int
    hidden: int
    depth: int
    stride: int = 2
    c3k: bool = False

    def __post_init__(self) -> None:
        require_block(self)
        require_positive(self, "entry", "hidden", "depth")
        require_flag(self, "c3k")
        if self.stride != 2:
            raise SpecError("C3k2.stride must be 2: the stage begins with its down-sampling convolution")
        least = 4 if self.c3k else 2  # a unit's inner convolutions have half of it, those of a C3k a quarter
        if self.hidden < least:
            raise SpecError(f"C3k2.hidden must be at least {least}, got {self.hidden}")

    def operations(self, in_channels: int, size: Size, activation: str, reparam: bool) -> list[Operation]:
        """Strided 3x3, 1x1 split in halves, `depth` chained units, and the 1x1 over every intermediate map."""
        hidden, after = self.hidden, halved(size, self.stride)
        result = [*convolution(in_channels, self.entry, size, 3, 2, activation=SILU, unit=0)]
        result += convolution(self.entry, 2 * hidden, after, activation=SILU, unit=0)
        result.append(split(2 * hidden, after))
        for _ in range(self.depth):
            result += _c3k(hidden, after) if self.c3k else _bottleneck(hidden, hidden // 2, after)
        wide = (2 + self.depth) * hidden
        result.append(pointwise("concat", wide, wide, after))
        return [*result, *convolution(wide, self.out, after, activation=SILU, unit=0)]


def _bottleneck(width: int, hidden: int, size: Size) -> list[Operation]:
    """Two 3x3 with a residual sum."""
    return [
        *convolution(width, hidden, size, 3, activation=SILU, unit=0),
        *convolution(hidden, width, size, 3, activation=SILU, fused_add=True, unit=0),
    ]


def _c3k(width: int, size: Size) -> list[Operation]:
    """A cross-stage-partial unit of two bottlenecks at half width."""
    half = width // 2
    result = [*convolution(width, half, size, activation=SILU, unit=0)]
    for _ in range(C3K_DEPTH):
        result += _bottleneck(half, half, size)
    result += convolution(width, half, size, activation=SILU, role="skip", unit=0)
    result.append(pointwise("concat", 2 * half, 2 * half, size))
    return [*result, *convolution(2 * half, width, size, activation=SILU, unit=0)]


def attention_heads(width: int) -> int:
    """Heads of a YOLO11 attention unit on `width` channels: one for every 64, at least one."""
    return max(width // 64, 1)


@dataclass(frozen=True, slots=True)
class C2PSA(Block):
    """YOLO11's attention block with `depth` PSA units on half the channels; keeps the width of its input."""

    module: ClassVar[str] = "nas.models.baselines.blocks:C2PSABlock"
    carries_pyramid: ClassVar[bool] = False
    keeps_width: ClassVar[bool] = True

    out: int
    depth: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        require_block(self)
        require_positive(self, "depth")
        if self.stride != 1 or self.out % 2:
            raise SpecError("C2PSA.stride must be 1 and C2PSA.out even")
        half = self.out // 2
        if half % attention_heads(half):
            raise SpecError(f"C2PSA.out={self.out}: its {attention_heads(half)} heads do not divide {half} channels")

    def operations(self, in_channels: int, size: Size, activation: str, reparam: bool) -> list[Operation]:
        """1x1 split in halves, `depth` attention units on one half, and the 1x1 over both."""
        half = self.out // 2
        result = [*convolution(self.out, 2 * half, size, activation=SILU, unit=0), split(2 * half, size)]
        for _ in range(self.depth):
            result += _attention(half, attention_heads(half), size)
            result += convolution(half, 2 * half, size, activation=SILU, unit=0)
            result += convolution(2 * half, half, size, fused_add=True, unit=0)
        result.append(pointwise("concat", 2 * half, 2 * half, size))
        return [*result, *convolution(2 * half, self.out, size, activation=SILU, unit=0)]

    def require_input(self, in_channels: int) -> None:
        if self.out != in_channels:
            raise SpecError(f"C2PSA keeps the width of its input, {in_channels}, got out={self.out}")


def _attention(width: int, heads: int, size: Size) -> list[Operation]:
    """Queries, keys and values in one 1x1, two matrix products around the softmax, the position term, and a 1x1."""
    cells, value = size[0] * size[1], width // heads
    key = value // 2
    stacked = width + 2 * key * heads

    def product(rows: int, inner: int) -> Operation:
        return Operation("matmul", inner, cells, rows, 1, rows, 1, groups=heads)

    return [
        *convolution(width, stacked, size, unit=0),
        split(stacked, size),
        pointwise("elementwise", heads, heads, (cells, key)),
        product(cells, key),
        pointwise("softmax", heads, heads, (cells, cells)),
        product(value, cells),
        *convolution(width, width, size, 3, groups=width, fused_add=True, role="skip", unit=0),
        *convolution(width, width, size, fused_add=True, unit=0),
    ]
