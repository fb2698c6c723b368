"""The hand-drawn blocks as stages of our own backbones: what the spec's GELAN, C3k2 and C2PSA build.

They are as published whatever the backbone's activation and `reparam`.
"""

from __future__ import annotations

from torch import nn

from nas.models.baselines.anchor_head import PlannedRepConv
from nas.models.baselines.attention import C2PSA
from nas.models.baselines.conv import SPPELAN, SPPF, AConv, ADown, Conv, RepConv
from nas.models.baselines.csp import C3k2
from nas.models.baselines.elan import ELAN1, RepNCSPELAN4
from nas.spec import C2PSA as C2PSASpec
from nas.spec import GELAN
from nas.spec import C3k2 as C3k2Spec

__all__ = ["SPPELAN", "SPPF", "C2PSABlock", "C3k2Stage", "GELANStage", "fuse_units"]


def fuse_units(module: nn.Module) -> None:
    """Merge the branches and fold the BatchNorms of every hand-drawn unit inside `module`, in place."""
    for unit in list(module.modules()):
        if isinstance(unit, RepConv | PlannedRepConv):
            unit.fuse()
    for unit in list(module.modules()):
        if isinstance(unit, Conv):
            unit.fuse()


class GELANStage(nn.Sequential):
    """Down-sampler and ELAN1 or RepNCSPELAN4 of YOLOv9; (B, C, H, W) -> (B, block.out, H/2, W/2)."""

    def __init__(self, block: GELAN, in_channels: int, activation: str, reparam: bool) -> None:
        down: nn.Module
        if block.down == "conv":
            down = Conv(in_channels, block.entry, 3, 2)
        else:
            down = (AConv if block.down == "aconv" else ADown)(in_channels, block.entry)
        body: nn.Module
        if block.depth == 0:
            body = ELAN1(block.entry, block.out, block.hidden, block.inner)
        else:
            body = RepNCSPELAN4(block.entry, block.out, block.hidden, block.inner, block.depth)
        super().__init__(down, body)

    def fuse(self) -> None:
        fuse_units(self)


class C3k2Stage(nn.Sequential):
    """3x3 stride-2 Conv and C3k2 of YOLO11; (B, C, H, W) -> (B, block.out, H/2, W/2)."""

    def __init__(self, block: C3k2Spec, in_channels: int, activation: str, reparam: bool) -> None:
        super().__init__(
            Conv(in_channels, block.entry, 3, 2),
            C3k2(block.entry, block.out, block.depth, block.c3k, hidden=block.hidden),
        )

    def fuse(self) -> None:
        fuse_units(self)


class C2PSABlock(C2PSA):
    """YOLO11's attention block of the spec; (B, out, H, W) -> the same shape."""

    def __init__(self, block: C2PSASpec, in_channels: int, activation: str, reparam: bool) -> None:
        super().__init__(block.out, block.out, block.depth)

    def fuse(self) -> None:
        fuse_units(self)
