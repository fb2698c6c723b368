"""DAMO-YOLO's CSP stages (models M and L)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from nas.blocks.base import Block, Size, require_block, require_choice, require_positive
from nas.blocks.operation import Operation, convolution, halved, pointwise
from nas.blocks.residual import Residual
from nas.errors import SpecError

#: The wrapper is built with its default activation in the official models, whatever the configuration says.
WRAPPER_ACTIVATION = "relu"


@dataclass(frozen=True, slots=True)
class CSP(Block):
    """DAMO-YOLO M/L stage: 3x3 stride-2 down-sampler, then `depth` units of `kind` on half the channels, fused 1x1.

    CSP-Darknet's stage is the same with k1kx units. The wrapper's own four convolutions use ReLU whatever the
    backbone's activation (as the official models).
    """

    module: ClassVar[str] = "nas.models.backbone:CSPStage"
    spp_inside: ClassVar[bool] = True
    list_name: ClassVar[str] = "csp_stage"

    out: int
    bottleneck: int
    depth: int
    stride: int = 2
    kernel: int = 3
    kind: Literal["k1kx", "kxkx"] = "kxkx"

    def __post_init__(self) -> None:
        require_block(self)
        require_choice(self, "kind", Literal["k1kx", "kxkx"])
        require_positive(self, "bottleneck", "depth")
        if self.stride != 2:
            raise SpecError("CSP.stride must be 2: the stage begins with its down-sampler")
        if self.out % 2:
            raise SpecError(f"CSP.out must be even, got {self.out}")

    @property
    def units(self) -> Residual:
        """The residual chain inside the stage, on half the channels at stride 1."""
        return Residual(self.kind, self.out // 2, self.bottleneck, self.depth, 1, self.kernel)

    def operations(self, in_channels: int, size: Size, activation: str, reparam: bool) -> list[Operation]:
        """Down-sampler, shortcut and main branch, and their fusion."""
        half, after = self.out // 2, halved(size, 2)
        result = [*convolution(in_channels, self.out, size, self.kernel, 2, activation=WRAPPER_ACTIVATION)]
        result += convolution(self.out, half, after, activation=WRAPPER_ACTIVATION, role="skip")
        result += convolution(self.out, half, after, activation=WRAPPER_ACTIVATION)
        result += self.units.operations(half, after, activation, reparam)
        result.append(pointwise("concat", self.out, self.out, after))
        return [*result, *convolution(self.out, self.out, after, activation=WRAPPER_ACTIVATION)]

    def spp_index(self, operations: Sequence[Operation]) -> int:
        return 1  # behind the down-sampler
