"""Operations of YOLO11's C3k2 stages and C2PSA attention blocks; always SiLU, as published.

Convolutions off the longest path of a block have the role "skip", so that depth-reading scores see that path alone.
"""

from __future__ import annotations

from nas.blocks.operation import Operation
from nas.blocks.primitives import convolution, halved, pointwise
from nas.lowering.gelan import SILU, split
from nas.spec import C2PSA, C3k2, attention_heads

Size = tuple[int, int]

#: Bottlenecks inside one C3k unit.
C3K_DEPTH = 2


def c3k2_operations(block: C3k2, in_channels: int, size: Size) -> list[Operation]:
    """Strided 3x3, 1x1 split in halves, `depth` chained units, and the 1x1 over every intermediate map."""
    hidden, after = block.hidden, halved(size, block.stride)
    result = [*convolution(in_channels, block.entry, size, 3, 2, activation=SILU, unit=0)]
    result += convolution(block.entry, 2 * hidden, after, activation=SILU, unit=0)
    result.append(split(2 * hidden, after))
    for _ in range(block.depth):
        result += _c3k(hidden, after) if block.c3k else _bottleneck(hidden, hidden // 2, after)
    wide = (2 + block.depth) * hidden
    result.append(pointwise("concat", wide, wide, after))
    return [*result, *convolution(wide, block.out, after, activation=SILU, unit=0)]


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


def c2psa_operations(block: C2PSA, size: Size) -> list[Operation]:
    """1x1 split in halves, `depth` attention units on one half, and the 1x1 over both."""
    half = block.out // 2
    result = [*convolution(block.out, 2 * half, size, activation=SILU, unit=0), split(2 * half, size)]
    for _ in range(block.depth):
        result += _attention(half, attention_heads(half), size)
        result += convolution(half, 2 * half, size, activation=SILU, unit=0)
        result += convolution(2 * half, half, size, fused_add=True, unit=0)
    result.append(pointwise("concat", 2 * half, 2 * half, size))
    return [*result, *convolution(2 * half, block.out, size, activation=SILU, unit=0)]


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
