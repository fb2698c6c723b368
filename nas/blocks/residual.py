"""The residual units of the TinyNAS families (tinynas: one super-block = `depth` units), and single convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from nas.blocks.base import Block, Size, require_block, require_choice, require_positive, second_unit
from nas.blocks.operation import Operation, convolution, halved, pointwise, pooling

ResidualKind = Literal["k1kx", "kxkx", "k1kxk1", "k1dwk1", "k1dwsek1"]

#: Convolutions of a unit by the TinyNAS layer count.
LAYERS_PER_UNIT = {"k1kx": 2, "kxkx": 2, "k1kxk1": 3, "k1dwk1": 3, "k1dwsek1": 3}


@dataclass(frozen=True, slots=True)
class Plain(Block):
    """One convolution with BN and activation (the closing 1x1 of the MobileNet-like published nets)."""

    module: ClassVar[str] = "nas.models.backbone:PlainStage"

    out: int
    kernel: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        require_block(self)

    @property
    def depth(self) -> int:
        return 1

    def operations(self, in_channels: int, size: Size, activation: str, reparam: bool) -> list[Operation]:
        """One convolution with BN and activation."""
        return [*convolution(in_channels, self.out, size, self.kernel, self.stride, activation=activation, unit=0)]


@dataclass(frozen=True, slots=True)
class Residual(Block):
    """`depth` residual units of the TinyNAS families; the first maps the input to `out` with `stride`.

    `shortcut="pooled"` is TinyNAS (average pooling at stride 2, 1x1 projection when widths differ);
    `shortcut="stride1"` is DAMO-YOLO (no shortcut at all at stride 2).
    """

    module: ClassVar[str] = "nas.models.backbone:ResidualStage"
    spp_inside: ClassVar[bool] = True
    shortcuts_may_go: ClassVar[bool] = True

    kind: ResidualKind
    out: int
    bottleneck: int
    depth: int
    stride: int
    kernel: int = 3
    shortcut: Literal["pooled", "stride1"] = "stride1"

    def __post_init__(self) -> None:
        require_choice(self, "kind", ResidualKind)
        require_choice(self, "shortcut", Literal["pooled", "stride1"])
        require_block(self)
        require_positive(self, "bottleneck", "depth")

    def operations(self, in_channels: int, size: Size, activation: str, reparam: bool) -> list[Operation]:
        """All units: convolutions in order, then the shortcut's pooling and projection."""
        result: list[Operation] = []
        for unit in range(self.depth):
            stride, channels = (self.stride, in_channels) if unit == 0 else (1, self.out)
            result += _unit(self, channels, size, stride, unit, activation, reparam)
            size = halved(size, stride)
        return result

    def spp_index(self, operations: Sequence[Operation]) -> int:
        return second_unit(operations)


def squeeze_width(channels: int) -> int:
    """Bottleneck of TinyNAS squeeze-excite on `channels`."""
    return max(1, round(channels * 0.25) // 8) * 8


def has_shortcut(block: Residual, in_channels: int, stride: int) -> bool:
    """Whether a unit adds its input: TinyNAS always (depthwise kinds only at equal widths), DAMO-YOLO at stride 1."""
    if block.shortcut == "stride1":
        return stride == 1
    return block.kind not in ("k1dwk1", "k1dwsek1") or in_channels == block.out


def needs_projection(block: Residual, in_channels: int, unit: int) -> bool:
    """Whether the shortcut carries a 1x1 convolution: unequal widths; k1kxk1 of TinyNAS in its first unit always."""
    always = block.kind == "k1kxk1" and block.shortcut == "pooled" and unit == 0
    return always or in_channels != block.out


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
