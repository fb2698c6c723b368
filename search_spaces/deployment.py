"""The one conversion from what is searched to what is deployed (DAMO-YOLO, arXiv 2211.15444)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from nas.blocks.operation import divisible
from nas.errors import SpecError
from nas.spec import CSP, Backbone, Block, InvertedResidual, Residual, Stem

Family = Literal["res", "csp", "mob"]

#: Expansion of the nano models' first block; every later block adds half.
NANO_RATIO, NANO_RATIO_STEP = 3.5, 0.5


def deployed(spec: Backbone, family: Family = "res", focus: bool = True) -> Backbone:
    """DAMO-YOLO's backbone for a searched TinyNAS backbone, as its builders of that family make it.

    res (T, S): the same blocks without shortcuts at stride 2, ReLU, 3x3 convolutions with a parallel 1x1 in training.
    csp (M, L): one CSP stage per resolution on half the channels; a stride-1 block joins the stage before it; the
        down-sampler stands for the first unit of a stride-2 block, so it adds one unit less than its depth. SiLU.
    mob (nano): 5x5 inverted residuals, hidden width from the block's position (3.5, 4, 4.5 ... times the output);
        bottleneck and kernel of the searched block are not used. SiLU, no parallel branches.
    `focus`: a Focus stem (all but the current nano models), else a stride-2 convolution. All carry SPP.
    Raises SpecError if a block is not residual, or cannot be part of a CSP stage.
    """
    stem = Stem("focus" if focus else "conv", spec.stem.out, spec.stem.kernel)
    residuals = [_residual(block, index) for index, block in enumerate(spec.blocks)]
    blocks: tuple[Block, ...]
    if family == "res":
        blocks = tuple(replace(block, shortcut="stride1") for block in residuals)
        return Backbone(stem, blocks, spec.out_blocks, "spp", "relu", reparam=True)
    if family == "mob":
        blocks = tuple(_inverted(block, index) for index, block in enumerate(residuals))
        return Backbone(stem, blocks, spec.out_blocks, "spp", "silu")
    if family == "csp":
        blocks, stages = _csp_stages(residuals)
        return Backbone(stem, blocks, tuple(stages[index] for index in spec.out_blocks), "spp", "silu", reparam=True)
    raise SpecError(f"unknown family {family!r}; known: res, csp, mob")


def _residual(block: Block, index: int) -> Residual:
    if not isinstance(block, Residual):
        raise SpecError(f"block {index} is {type(block).__name__}: only residual backbones have a deployed form")
    return block


def _inverted(block: Residual, index: int) -> InvertedResidual:
    ratio = NANO_RATIO + NANO_RATIO_STEP * index
    return InvertedResidual(block.out, divisible(math.ceil(block.out * ratio)), block.depth, block.stride)


def _csp_stages(blocks: list[Residual]) -> tuple[tuple[CSP, ...], list[int]]:
    """The stages, and for each searched block the index of its stage."""
    stages: list[CSP] = []
    members: list[int] = []
    for index, block in enumerate(blocks):
        if block.kind not in ("k1kx", "kxkx"):
            raise SpecError(f"block {index} is {block.kind}: CSP stages are built of k1kx or kxkx units")
        if block.stride == 2:
            if block.depth < 2:
                raise SpecError(f"block {index} has depth 1: its down-sampler would be the whole CSP stage")
            stages.append(CSP(block.out, block.bottleneck, block.depth - 1, 2, block.kernel, block.kind))
        else:
            if not stages:
                raise SpecError("the first block has stride 1: a CSP stage begins with a stride-2 block")
            last = stages[-1]
            units = (block.out, block.bottleneck, block.kernel, block.kind)
            if (last.out, last.bottleneck, last.kernel, last.kind) != units:
                raise SpecError(f"block {index} differs in width or units from the stage that it joins")
            stages[-1] = replace(last, depth=last.depth + block.depth)
        members.append(len(stages) - 1)
    return tuple(stages), members
