"""Operations of the nano models' inverted residual units, in the backbone and in the light neck."""

from __future__ import annotations

from nas.blocks.operation import Operation, Role
from nas.blocks.primitives import convolution, halved, pointwise
from nas.spec import InvertedResidual


def inverted_unit(
    channels: int,
    hidden: int,
    out: int,
    size: tuple[int, int],
    kernel: int,
    stride: int,
    activation: str,
    *,
    squeeze_excite: bool = False,
    role: Role = "main",
    unit: int = -1,
) -> list[Operation]:
    """1x1 to `hidden`, depthwise, 1x1 linear; adds its input at stride 1 and equal widths, no activation after."""
    after = halved(size, stride)
    result = [*convolution(channels, hidden, size, activation=activation, role=role, unit=unit)]
    # squeeze-excite stands between the depthwise BN and its activation
    inner = "none" if squeeze_excite else activation
    result += convolution(hidden, hidden, size, kernel, stride, hidden, inner, role=role, unit=unit)
    if squeeze_excite:
        result += _linear_gate(hidden, after)
    add = stride == 1 and channels == out
    return [*result, *convolution(hidden, out, after, fused_add=add, role=role, unit=unit)]


def _linear_gate(channels: int, size: tuple[int, int]) -> list[Operation]:
    """Squeeze-excite of the mob family: bias-free linear layers without BN, hard-sigmoid gate; its product and the
    activation behind it are one kernel."""
    return [
        Operation("globalpool", channels, channels, 1, 1, *size, role="se"),
        Operation("linear", channels, channels // 4, 1, 1, 1, 1, activation="relu", role="se"),
        Operation("linear", channels // 4, channels, 1, 1, 1, 1, activation="hard_sigmoid", role="se"),
        pointwise("elementwise", channels, channels, size, role="se"),
    ]


def inverted_operations(
    block: InvertedResidual, in_channels: int, size: tuple[int, int], activation: str
) -> list[Operation]:
    """All units of a block; every unit has the same hidden width."""
    result: list[Operation] = []
    for unit in range(block.depth):
        stride = block.stride if unit == 0 else 1
        channels = in_channels if unit == 0 else block.out
        result += inverted_unit(
            channels,
            block.hidden,
            block.out,
            size,
            block.kernel,
            stride,
            activation,
            squeeze_excite=block.squeeze_excite,
            unit=unit,
        )
        size = halved(size, stride)
    return result
