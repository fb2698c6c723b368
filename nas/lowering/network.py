"""Operations of stems, blocks, backbones and whole detectors; each block is lowered once per input and remembered."""

from __future__ import annotations

from functools import lru_cache

from nas.blocks.operation import Operation
from nas.blocks.primitives import Form, convolution, halved, in_form
from nas.errors import SpecError
from nas.lowering.c3k2 import c2psa_operations, c3k2_operations
from nas.lowering.csp import csp_operations
from nas.lowering.gelan import gelan_operations
from nas.lowering.head import head_operations
from nas.lowering.inverted import inverted_operations
from nas.lowering.neck import neck_operations
from nas.lowering.residual import plain_operations, residual_operations
from nas.lowering.spp import chained_operations, spp_operations
from nas.spec import (
    C2PSA,
    CSP,
    GELAN,
    Backbone,
    Block,
    C3k2,
    DetectorSpec,
    HeadSpec,
    InvertedResidual,
    NeckSpec,
    Plain,
    Residual,
    Spec,
    Stem,
    image_side,
)

Size = tuple[int, int]


@lru_cache(maxsize=4096)
def stem_operations(stem: Stem, size: Size, activation: str, form: Form = "merged") -> tuple[Operation, ...]:
    """A strided convolution on the image, or space-to-depth and a stride-1 convolution on 12 channels."""
    if stem.kind == "conv":
        return in_form(
            convolution(3, stem.out, size, stem.kernel, stem.stride, activation=activation, role="stem"), form
        )
    half = halved(size, 2)
    focus = Operation("slice", 3, 12, *half, *size, kernel=2, stride=2, role="stem")
    return in_form([focus, *convolution(12, stem.out, half, stem.kernel, activation=activation, role="stem")], form)


@lru_cache(maxsize=200_000)
def block_operations(
    block: Block,
    in_channels: int,
    height: int,
    width: int,
    activation: str = "relu",
    reparam: bool = False,
    spp: str = "none",
    form: Form = "merged",
) -> tuple[Operation, ...]:
    """Operations of one block on an input map; `spp` names the pyramid that the last block of a backbone carries."""
    size = (height, width)
    if isinstance(block, Plain):
        result = plain_operations(block, in_channels, size, activation)
    elif isinstance(block, Residual):
        result = residual_operations(block, in_channels, size, activation, reparam)
    elif isinstance(block, InvertedResidual):
        result = inverted_operations(block, in_channels, size, activation)
    elif isinstance(block, CSP):
        result = csp_operations(block, in_channels, size, activation, reparam, spp == "spp")
    elif isinstance(block, GELAN):
        result = gelan_operations(block, in_channels, size)
    elif isinstance(block, C3k2):
        result = c3k2_operations(block, in_channels, size)
    elif isinstance(block, C2PSA):
        result = c2psa_operations(block, size)
    else:
        raise SpecError(f"no lowering for a block of type {type(block).__name__}")
    if spp != "none" and not isinstance(block, CSP):
        result = _with_pyramid(block, result, halved(size, block.stride), spp)
    return in_form(result, form)


def _with_pyramid(block: Block, result: list[Operation], size: Size, spp: str) -> list[Operation]:
    """SPP stands after the first unit of the last block (DAMO-YOLO); the YOLO pyramids after the whole block."""
    if spp == "spp":
        first = next((i for i, operation in enumerate(result) if operation.unit >= 1), len(result))
        return [*result[:first], *spp_operations(block.out, size), *result[first:]]
    return [*result, *chained_operations(block.out, block.out // 2, block.out, size)]


def backbone_operations(backbone: Backbone, image_size: int, form: Form = "merged") -> list[tuple[Operation, ...]]:
    """Operations of the stem and of every block, one tuple each, on a square image."""
    size: Size = (image_size, image_size)
    result = [stem_operations(backbone.stem, size, backbone.activation, form)]
    channels, size = backbone.stem.out, halved(size, backbone.stem.stride)
    pyramid = pyramid_block(backbone)
    for index, block in enumerate(backbone.blocks):
        spp = backbone.spp if index == pyramid else "none"
        result.append(block_operations(block, channels, *size, backbone.activation, backbone.reparam, spp, form))
        channels, size = block.out, halved(size, block.stride)
    return result


def pyramid_block(backbone: Backbone) -> int:
    """Index of the block that carries the pooling pyramid: the last, or the one before closing attention blocks."""
    index = len(backbone.blocks) - 1
    while index > 0 and isinstance(backbone.blocks[index], C2PSA):
        index -= 1
    return index


def out_sizes(backbone: Backbone, image_size: int) -> tuple[Size, ...]:
    """Height and width of the output maps of a backbone on a square image."""
    size, sizes = halved((image_size, image_size), backbone.stem.stride), []
    for block in backbone.blocks:
        size = halved(size, block.stride)
        sizes.append(size)
    return tuple(sizes[index] for index in backbone.out_blocks)


@lru_cache(maxsize=50_000)
def neck_and_head_operations(
    neck: NeckSpec,
    head: HeadSpec,
    channels: tuple[int, int, int],
    sizes: tuple[Size, ...],
    form: Form = "merged",
) -> tuple[Operation, ...]:
    """Operations after the backbone, which depend on it through C3, C4, C5 alone."""
    result = neck_operations(neck, channels, sizes)
    result += head_operations(head, neck.out, sizes, neck.activation)
    return in_form(result, form)


def operations(spec: Spec, form: Form = "merged", image_size: int | None = None) -> tuple[Operation, ...]:
    """Every operation of a backbone or a whole detector in execution order.

    form: "train" has the parallel branches, "merged" sums them (the published parameter count), "folded" absorbs BN.
    image_size: pixels; a detector brings its own, which this overrides, a backbone is taken at 640 unless told.
    Raises SpecError for an image size that the network cannot have.
    """
    if not isinstance(spec, Backbone | DetectorSpec):
        raise SpecError(f"expected a Backbone or a DetectorSpec, got {type(spec).__name__}")
    side = image_side(spec, image_size)
    if isinstance(spec, Backbone):
        return tuple(op for group in backbone_operations(spec, side, form) for op in group)
    c3, c4, c5 = spec.backbone.out_channels
    body = operations(spec.backbone, form, side)
    return body + neck_and_head_operations(spec.neck, spec.head, (c3, c4, c5), out_sizes(spec.backbone, side), form)
