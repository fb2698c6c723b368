"""Backbones: a stem and a list of blocks, from a spec to modules that return the maps C3, C4, C5."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from nas.blocks import Block
from nas.lowering.network import pyramid_block
from nas.models.layers import SPP, ConvNormAct, Focus, fold_batch_norms, merge_branches
from nas.spec import Backbone


class BackboneModule(nn.Module):
    """(B, 3, H, W) -> the maps of the spec's `out_blocks`, for detectors C3, C4, C5 at strides 8, 16, 32."""

    def __init__(self, spec: Backbone) -> None:
        super().__init__()
        stem, channels = spec.stem, spec.stem.out
        first: nn.Module = (
            Focus(stem.out, stem.kernel, spec.activation)
            if stem.kind == "focus"
            else ConvNormAct(3, stem.out, stem.kernel, stem.stride, spec.activation)
        )
        stages = [first]
        for index, block in enumerate(spec.blocks):
            stages.append(_build_stage(block, channels, spec, spec.spp if index == pyramid_block(spec) else "none"))
            channels = block.out
        names = {block.list_name for block in spec.blocks}
        self.list_name = names.pop() if len(names) == 1 else Block.list_name
        self.add_module(self.list_name, nn.ModuleList(stages))
        self.out_blocks = spec.out_blocks
        if all(block.nano_start for block in spec.blocks):
            self.apply(_start_nano)

    def forward(self, x: Tensor) -> list[Tensor]:
        stages = cast(nn.ModuleList, getattr(self, self.list_name))
        maps = []
        x = stages[0](x)
        for index, stage in enumerate(list(stages)[1 : self.out_blocks[-1] + 2]):
            x = stage(x)
            if index in self.out_blocks:
                maps.append(x)
        return maps

    def fuse(self) -> BackboneModule:
        """Merge the branches and fold every BatchNorm, in place, of a backbone that stands alone."""
        merge_branches(self)
        fold_batch_norms(self)
        return self.eval()


def _build_stage(block: Block, in_channels: int, spec: Backbone, pyramid: str) -> nn.Module:
    """The module of one block, with the pooling pyramid inside where the block takes it, else behind."""
    made = build_pyramid(pyramid, block.out)
    if pyramid == "spp" and block.spp_inside:
        return block.build(in_channels, spec.activation, spec.reparam, spp=made)
    stage = block.build(in_channels, spec.activation, spec.reparam)
    return stage if made is None else nn.Sequential(stage, made)


def build_pyramid(kind: str, channels: int) -> nn.Module | None:
    """The pooling pyramid of a kind on `channels`, or None."""
    if kind == "none":
        return None
    if kind == "spp":
        return SPP(channels)
    from nas.models.baselines.conv import SPPELAN, SPPF

    return SPPF(channels, channels) if kind == "sppf" else SPPELAN(channels, channels, channels // 2)


def _start_nano(module: nn.Module) -> None:
    """The nano family's start values: convolutions normal with std 1 / fan-in channels, BatchNorm biases 1e-4."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=1.0 / module.weight.shape[1])
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.constant_(module.bias, 1e-4)
