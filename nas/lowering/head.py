"""Operations of ZeroHead and of the box decoding that is part of every latency."""

from __future__ import annotations

from dataclasses import replace

from nas.blocks.operation import Operation
from nas.blocks.primitives import convolution, pointwise
from nas.spec import HeadSpec


def head_operations(
    head: HeadSpec, channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...], activation: str
) -> list[Operation]:
    """Per level: `stacked` 3x3 layers, the two projections, softmax over the bins; then the shared decoding.

    Reshapes and transposes are free: engines write the concatenated rows in the final layout.
    """
    bins = head.reg_max + 1
    result: list[Operation] = []
    for width, size in zip(channels, sizes, strict=True):
        for _ in range(head.stacked):
            result += convolution(width, width, size, 3, activation=activation, role="head")
        for out, scalars, kind in ((head.num_classes, 0, "sigmoid"), (4 * bins, 1, "none")):
            (projection,) = convolution(
                width, out, size, head.kernel, activation=kind, norm=False, bias=True, role="head"
            )
            result.append(replace(projection, scalars=scalars))
        result.append(pointwise("softmax", 4 * bins, 4 * bins, size, role="head"))
    cells = (sum(height * width for height, width in sizes), 1)
    result.append(pointwise("concat", head.num_classes, head.num_classes, cells, role="head"))
    result.append(pointwise("concat", 4 * bins, 4 * bins, cells, role="head"))
    result.append(pointwise("integral", 4 * bins, 4, cells, role="head"))
    result.append(pointwise("elementwise", 4, 4, cells, role="head"))
    return result
