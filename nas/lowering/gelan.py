"""Operations of YOLOv9's stages: AConv and ADown down-samplers, ELAN1 and RepNCSPELAN4; always SiLU, as published.

Convolutions off the longest path of a stage have the role "skip", so that depth-reading scores see that path alone.
"""

from __future__ import annotations

from nas.blocks.operation import Operation
from nas.blocks.primitives import convolution, halved, pointwise, pooling
from nas.spec import GELAN

Size = tuple[int, int]
SILU = "silu"


def split(channels: int, size: Size) -> Operation:
    """The copy that cuts a map in halves."""
    return pointwise("slice", channels, channels, size)


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


def csp_operations(channels: int, out: int, depth: int, size: Size) -> list[Operation]:
    """RepNCSP: `depth` units of a re-parameterised and a plain 3x3 at half width, beside a 1x1, fused by a 1x1."""
    half = out // 2
    result = [*convolution(channels, half, size, activation=SILU, unit=0)]
    for _ in range(depth):
        result += convolution(half, half, size, 3, activation=SILU, rep=True, unit=0)
        result += convolution(half, half, size, 3, activation=SILU, fused_add=True, unit=0)
    result += convolution(channels, half, size, activation=SILU, role="skip", unit=0)
    result.append(pointwise("concat", 2 * half, 2 * half, size))
    return [*result, *convolution(2 * half, out, size, activation=SILU, unit=0)]


def gelan_operations(block: GELAN, in_channels: int, size: Size) -> list[Operation]:
    """Down-sampler, 1x1 split in halves, two computed branches, and the 1x1 over all four maps."""
    result = down_operations(block.down, in_channels, block.entry, size)
    after = halved(size, block.stride)
    result += convolution(block.entry, block.hidden, after, activation=SILU, unit=0)
    result.append(split(block.hidden, after))
    for channels in (block.hidden // 2, block.inner):
        if block.depth:
            result += csp_operations(channels, block.inner, block.depth, after)
            channels = block.inner
        result += convolution(channels, block.inner, after, 3, activation=SILU, unit=0)
    wide = block.hidden + 2 * block.inner
    result.append(pointwise("concat", wide, wide, after))
    return [*result, *convolution(wide, block.out, after, activation=SILU, unit=0)]
