"""Whole networks: backbone, neck and head as one list of operations, memoised block by block."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from nas.blocks import Block
from nas.blocks.base import Size
from nas.blocks.operation import (
    Form,
    Operation,
    convolution,
    halved,
    in_form,
    pointwise,
    pyramid_operations,
)
from nas.errors import SpecError
from nas.lowering.repgfpn import neck_operations
from nas.spec import Backbone, DetectorSpec, HeadSpec, NeckSpec, Spec, Stem, image_side


def head_operations(
    head: HeadSpec, channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...], activation: str
) -> list[Operation]:
    """Per level: `stacked` 3x3 layers, the two projections, softmax over the bins; then the shared decoding.

    Reshapes and transposes are free: engines write the concatenated rows in the final layout.
    """
    result: list[Operation] = []
    for width, size in zip(channels, sizes, strict=True):
        result += head_level_operations(head, width, size, activation)
    return [*result, *decoding_operations(head, sizes)]


def head_level_operations(head: HeadSpec, width: int, size: Size, activation: str) -> list[Operation]:
    """Operations of the head on one map."""
    bins, result = head.reg_max + 1, list[Operation]()
    for _ in range(head.stacked):
        result += convolution(width, width, size, 3, activation=activation, role="head")
    for out, scalars, kind in ((head.num_classes, 0, "sigmoid"), (4 * bins, 1, "none")):
        (projection,) = convolution(width, out, size, head.kernel, activation=kind, norm=False, bias=True, role="head")
        result.append(replace(projection, scalars=scalars))
    return [*result, pointwise("softmax", 4 * bins, 4 * bins, size, role="head")]


def decoding_operations(head: HeadSpec, sizes: tuple[Size, ...]) -> list[Operation]:
    """Operations that make boxes of all maps' bins, whatever their widths."""
    bins, cells = head.reg_max + 1, (sum(height * width for height, width in sizes), 1)
    return [
        pointwise("concat", head.num_classes, head.num_classes, cells, role="head"),
        pointwise("concat", 4 * bins, 4 * bins, cells, role="head"),
        pointwise("integral", 4 * bins, 4, cells, role="head"),
        pointwise("elementwise", 4, 4, cells, role="head"),
    ]


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
    """Operations of one block on an input map; `spp` names the pyramid that the last block of a backbone carries.

    DAMO-YOLO's SPP stands where the block says (after its first unit), the YOLO pyramids behind the whole block.
    """
    result = block.operations(in_channels, (height, width), activation, reparam)
    after = halved((height, width), block.stride)
    if spp != "none":
        index, kernels = (block.spp_index(result), (5, 9, 13)) if spp == "spp" else (len(result), (5, 5, 5))
        pyramid = pyramid_operations(block.out, block.out // 2, after, kernels)
        result = [*result[:index], *pyramid, *result[index:]]
    return in_form(result, form)


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
    while index > 0 and not backbone.blocks[index].carries_pyramid:
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
    for _ in range(2 if head.one_to_one and form == "train" else 1):
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
