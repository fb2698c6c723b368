"""Operations of DAMO-YOLO's CSP stages (models M and L)."""

from __future__ import annotations

from nas.blocks.operation import Operation
from nas.blocks.primitives import convolution, halved, pointwise
from nas.lowering.residual import residual_operations
from nas.lowering.spp import spp_operations
from nas.spec import CSP, Residual

#: The wrapper is built with its default activation in the official models, whatever the configuration says.
WRAPPER_ACTIVATION = "relu"


def csp_units(block: CSP) -> Residual:
    """The residual chain inside the stage, on half the channels at stride 1."""
    return Residual(block.kind, block.out // 2, block.bottleneck, block.depth, 1, block.kernel)


def csp_operations(
    block: CSP, in_channels: int, size: tuple[int, int], activation: str, reparam: bool, spp: bool
) -> list[Operation]:
    """Down-sampler, pyramid pooling where asked, shortcut and main branch, and their fusion."""
    half, after = block.out // 2, halved(size, 2)
    wide = 2 * half
    result = [*convolution(in_channels, wide, size, block.kernel, 2, activation=WRAPPER_ACTIVATION)]
    if spp:
        result += spp_operations(wide, after)
    result += convolution(wide, block.out - half, after, activation=WRAPPER_ACTIVATION, role="skip")
    result += convolution(wide, half, after, activation=WRAPPER_ACTIVATION)
    result += residual_operations(csp_units(block), half, after, activation, reparam)
    result.append(pointwise("concat", block.out, block.out, after))
    result += convolution(block.out, block.out, after, activation=WRAPPER_ACTIVATION)
    return result
