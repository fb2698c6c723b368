"""Operations of the TinyNAS residual units (tinynas: one super-block = `depth` units) and of single convolutions."""

from __future__ import annotations

from nas.blocks.operation import Operation
from nas.blocks.primitives import convolution, halved, pointwise, pooling
from nas.spec import Plain, Residual

#: Convolutions of a unit by the TinyNAS layer count.
LAYERS_PER_UNIT = {"k1kx": 2, "kxkx": 2, "k1kxk1": 3, "k1dwk1": 3, "k1dwsek1": 3}


def squeeze_width(channels: int) -> int:
    """Bottleneck of TinyNAS squeeze-excite on `channels`."""
    return max(1, round(channels * 0.25) // 8) * 8


def plain_operations(block: Plain, in_channels: int, size: tuple[int, int], activation: str) -> list[Operation]:
    """One convolution with BN and activation."""
    return list(convolution(in_channels, block.out, size, block.kernel, block.stride, activation=activation, unit=0))


def has_shortcut(block: Residual, in_channels: int, stride: int) -> bool:
    """Whether a unit adds its input: TinyNAS always (depthwise kinds only at equal widths), DAMO-YOLO at stride 1."""
    if block.shortcut == "stride1":
        return stride == 1
    return block.kind not in ("k1dwk1", "k1dwsek1") or in_channels == block.out


def needs_projection(block: Residual, in_channels: int, unit: int) -> bool:
    """Whether the shortcut carries a 1x1 convolution: unequal widths; k1kxk1 of TinyNAS in its first unit always."""
    always = block.kind == "k1kxk1" and block.shortcut == "pooled" and unit == 0
    return always or in_channels != block.out


def residual_operations(
    block: Residual, in_channels: int, size: tuple[int, int], activation: str, reparam: bool
) -> list[Operation]:
    """All units of a block: convolutions in order, then the shortcut's pooling and projection."""
    result: list[Operation] = []
    for unit in range(block.depth):
        stride = block.stride if unit == 0 else 1
        channels = in_channels if unit == 0 else block.out
        result += _unit(block, channels, size, stride, unit, activation, reparam)
        size = halved(size, stride)
    return result


def _unit(
    block: Residual, channels: int, size: tuple[int, int], stride: int, unit: int, activation: str, reparam: bool
) -> list[Operation]:
    after, width, kernel = halved(size, stride), block.bottleneck, block.kernel
    shortcut = has_shortcut(block, channels, stride)
    first_kernel = kernel if block.kind == "kxkx" else 1
    result = [*convolution(channels, width, size, first_kernel, activation=activation, unit=unit)]
    if block.kind in ("k1kx", "kxkx"):
        result += convolution(
            width, block.out, size, kernel, stride, activation=activation, fused_add=shortcut, rep=reparam, unit=unit
        )
    else:
        depthwise = block.kind != "k1kxk1"
        groups = width if depthwise else 1
        result += convolution(
            width, width, size, kernel, stride, groups, activation, rep=reparam and not depthwise, unit=unit
        )
        if block.kind == "k1dwsek1":
            result += squeeze_excite(width, squeeze_width(width), after, "silu")
        result += convolution(width, block.out, after, activation=activation, fused_add=shortcut, unit=unit)
    if shortcut:
        if stride == 2:
            result.append(pooling("avgpool", channels, size, 2, 2, role="skip"))
        if needs_projection(block, channels, unit):
            result += convolution(channels, block.out, after, role="skip", unit=unit)
    return result


def squeeze_excite(channels: int, width: int, size: tuple[int, int], activation: str) -> list[Operation]:
    """Global pooling, two 1x1 convolutions with BN, and the gate's product."""
    pooled = Operation("globalpool", channels, channels, 1, 1, *size, role="se")
    return [
        pooled,
        *convolution(channels, width, (1, 1), activation=activation, role="se"),
        *convolution(width, channels, (1, 1), activation="sigmoid", role="se"),
        pointwise("mul", channels, channels, size, role="se"),
    ]
