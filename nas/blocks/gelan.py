"""YOLOv9's stages: AConv and ADown down-samplers, ELAN1 and RepNCSPELAN4; always SiLU, as published.

Convolutions off the longest path of a stage have the role "skip", so that depth-reading scores see that path alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from nas.blocks.base import MOST, Block, Size, require_block, require_choice, require_positive
from nas.blocks.operation import SILU, Operation, convolution, halved, pointwise, pooling, split
from nas.errors import SpecError

DownKind = Literal["conv", "aconv", "adown"]


@dataclass(frozen=True, slots=True)
class GELAN(Block):
    """YOLOv9 stage: a down-sampler to `entry` channels, then ELAN1 (`depth` 0) or RepNCSPELAN4 with `depth` units.

    `hidden` is the width that is split in halves (c3), `inner` the width of the two computed branches (c4).
    """

    module: ClassVar[str] = "nas.models.baselines.blocks:GELANStage"

    out: int
    entry: int
    hidden: int
    inner: int
    depth: int
    stride: int = 2
    down: DownKind = "aconv"

    def __post_init__(self) -> None:
        require_block(self)
        require_positive(self, "entry", "hidden", "inner")
        require_choice(self, "down", DownKind)
        if type(self.depth) is not int or not 0 <= self.depth <= MOST:
            raise SpecError(f"GELAN.depth must be 0 (ELAN1) or more, got {self.depth!r}")
        if self.hidden % 2 or self.stride != 2:
            raise SpecError("GELAN.hidden must be even and GELAN.stride 2")
        if self.depth and self.inner < 2:
            raise SpecError("GELAN.inner must be at least 2: the units of its branches have half of it")
        if self.down == "adown" and self.entry % 2:
            raise SpecError(f"GELAN.entry must be even with down=adown, got {self.entry}")

    def operations(self, in_channels: int, size: Size, activation: str, reparam: bool) -> list[Operation]:
        """Down-sampler, 1x1 split in halves, two computed branches, and the 1x1 over all four maps."""
        result = down_operations(self.down, in_channels, self.entry, size)
        after = halved(size, self.stride)
        result += convolution(self.entry, self.hidden, after, activation=SILU, unit=0)
        result.append(split(self.hidden, after))
        for channels in (self.hidden // 2, self.inner):
            if self.depth:
                result += rep_csp_operations(channels, self.inner, self.depth, after)
                channels = self.inner
            result += convolution(channels, self.inner, after, 3, activation=SILU, unit=0)
        wide = self.hidden + 2 * self.inner
        result.append(pointwise("concat", wide, wide, after))
        return [*result, *convolution(wide, self.out, after, activation=SILU, unit=0)]

    def require_input(self, in_channels: int) -> None:
        if self.down == "adown" and in_channels % 2:
            raise SpecError(f"an adown splits its input in halves, its width {in_channels} must be even")


def down_operations(kind: str, in_channels: int, out: int, size: Size) -> list[Operation]:
    """A strided 3x3, or YOLOv9's down-samplers behind a 2x2 average pooling of stride 1."""
    if kind == "conv":
        return [*convolution(in_channels, out, size, 3, 2, activation=SILU, unit=0)]
    height, width = size
    pooled = (height - 1, width - 1)
    first = Operation("avgpool", in_channels, in_channels, *pooled, height, width, 2, 1)
    if kind == "aconv":
        return [first, *convolution(in_channels, out, pooled, 3, 2, activation=SILU, unit=0)]
    half, after = in_channels // 2, halved(pooled, 2)
    return [
        first,
        split(in_channels, pooled),
        *convolution(half, out // 2, pooled, 3, 2, activation=SILU, unit=0),
        pooling("maxpool", half, pooled, 3, 2),
        *convolution(half, out // 2, after, activation=SILU, role="skip", unit=0),
        pointwise("concat", out, out, after),
    ]


def rep_csp_operations(channels: int, out: int, depth: int, size: Size) -> list[Operation]:
    """RepNCSP: `depth` units of a re-parameterised and a plain 3x3 at half width, beside a 1x1, fused by a 1x1."""
    half = out // 2
    result = [*convolution(channels, half, size, activation=SILU, unit=0)]
    for _ in range(depth):
        result += convolution(half, half, size, 3, activation=SILU, rep=True, unit=0)
        result += convolution(half, half, size, 3, activation=SILU, fused_add=True, unit=0)
    result += convolution(channels, half, size, activation=SILU, role="skip", unit=0)
    result.append(pointwise("concat", 2 * half, 2 * half, size))
    return [*result, *convolution(2 * half, out, size, activation=SILU, unit=0)]
