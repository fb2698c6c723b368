"""The nano models' inverted residual units, in the backbone and in the light neck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nas.blocks.base import Block, Size, require_block, require_flag, require_positive, second_unit
from nas.blocks.operation import Operation, Role, convolution, halved, pointwise


@dataclass(frozen=True, slots=True)
class InvertedResidual(Block):
    """`depth` inverted bottlenecks (1x1 to `hidden`, depthwise, 1x1) of the DAMO-YOLO nano models."""

    module: ClassVar[str] = "nas.models.backbone:InvertedStage"
    spp_inside: ClassVar[bool] = True
    nano_start: ClassVar[bool] = True

    out: int
    hidden: int
    depth: int
    stride: int
    kernel: int = 5
    squeeze_excite: bool = False

    def __post_init__(self) -> None:
        require_block(self)
        require_positive(self, "hidden", "depth")
        require_flag(self, "squeeze_excite")

    def operations(self, in_channels: int, size: Size, activation: str, reparam: bool) -> list[Operation]:
        """All units; every unit has the same hidden width."""
        result: list[Operation] = []
        for unit in range(self.depth):
            stride, channels = (self.stride, in_channels) if unit == 0 else (1, self.out)
            result += inverted_unit(
                channels, self.hidden, self.out, size, self.kernel, stride, activation,
                squeeze_excite=self.squeeze_excite, unit=unit,
            )  # fmt: skip
            size = halved(size, stride)
        return result

    def spp_index(self, operations: Sequence[Operation]) -> int:
        return second_unit(operations)


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
