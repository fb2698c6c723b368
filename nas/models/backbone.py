"""Backbones: a stem and a list of blocks, from a spec to modules that return the maps C3, C4, C5.

The stages of our own blocks are here: single convolutions, residual units (alone and inside CSP), inverted residual units.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.blocks import Block
from nas.blocks.csp import CSP, WRAPPER_ACTIVATION
from nas.blocks.inverted import InvertedResidual
from nas.blocks.residual import Plain, Residual, has_shortcut, needs_projection, squeeze_width
from nas.lowering.network import pyramid_block
from nas.models.layers import (
    SPP,
    ConvNorm,
    ConvNormAct,
    Focus,
    RepConv,
    Unit,
    UnitList,
    activation_layer,
    batch_norm,
    convolution,
    fold_batch_norms,
    merge_branches,
)
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


class PlainStage(ConvNormAct):
    """One convolution with BatchNorm and activation."""

    def __init__(self, block: Plain, in_channels: int, activation: str, reparam: bool) -> None:
        super().__init__(in_channels, block.out, block.kernel, block.stride, activation)


class SqueezeExcite(nn.Module):
    """Channel gate of TinyNAS k1dwsek1: global average, 1x1 to a quarter, SiLU, 1x1 back, sigmoid; with BatchNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = squeeze_width(channels)
        self.squeeze = ConvNorm(channels, hidden, 1)
        self.act = activation_layer("silu")
        self.excite = ConvNorm(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.excite(self.act(self.squeeze(functional.adaptive_avg_pool2d(x, 1))))
        return x * gate.sigmoid()


class ResidualUnit(Unit):
    """One unit of a Residual or CSP block: two or three convolutions, the stride on the k x k one, and a shortcut."""

    def __init__(
        self, block: Residual, in_channels: int, stride: int, index: int, activation: str, reparam: bool
    ) -> None:
        super().__init__()
        kind, out, width, kernel = block.kind, block.out, block.bottleneck, block.kernel
        depthwise = kind in ("k1dwk1", "k1dwsek1")
        self.conv1 = ConvNorm(in_channels, width, kernel if kind == "kxkx" else 1)
        # The parallel branch belongs to dense convolutions alone.
        last = RepConv if reparam and not depthwise else ConvNorm
        if kind in ("k1kx", "kxkx"):
            self.conv2 = last(width, out, kernel, stride)
        else:
            self.conv2 = last(width, width, kernel, stride, groups=width if depthwise else 1)
            self.conv3 = ConvNorm(width, out, 1)
        if kind == "k1dwsek1":
            self.se = SqueezeExcite(width)
        self.act = activation_layer(activation)
        self.shortcut = has_shortcut(block, in_channels, stride)
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if self.shortcut and stride == 2 else None
        projected = self.shortcut and needs_projection(block, in_channels, index)
        self.residual_proj = ConvNorm(in_channels, out, 1) if projected else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.act(self.conv1(x)))
        if hasattr(self, "conv3"):
            y = self.act(y)
            y = self.conv3(self.se(y) if hasattr(self, "se") else y)
        if self.shortcut:
            x = x if self.pool is None else self.pool(x)
            y = y + (x if self.residual_proj is None else self.residual_proj(x))
        return self.act(y)


class ResidualStage(UnitList):
    """The units of a Residual block."""

    def __init__(
        self, block: Residual, in_channels: int, activation: str, reparam: bool, spp: nn.Module | None = None
    ) -> None:
        units = (
            ResidualUnit(
                block, block.out if index else in_channels, 1 if index else block.stride, index, activation, reparam
            )
            for index in range(block.depth)
        )
        super().__init__(units, spp)


class CSPStage(nn.Module):
    """Down-sampler, pooling pyramid if asked, then `depth` kxkx units on half the channels beside a plain half."""

    def __init__(
        self, block: CSP, in_channels: int, activation: str, reparam: bool, spp: nn.Module | None = None
    ) -> None:
        super().__init__()
        half = block.out // 2
        self.downsampler = ConvNormAct(in_channels, block.out, block.kernel, 2, WRAPPER_ACTIVATION)
        self.spp = spp
        self.conv_shortcut = ConvNormAct(block.out, half, 1, 1, WRAPPER_ACTIVATION)
        self.conv_start = ConvNormAct(block.out, half, 1, 1, WRAPPER_ACTIVATION)
        unit = block.units
        self.convstem = nn.Sequential(
            *(ResidualUnit(unit, half, 1, index, activation, reparam) for index in range(unit.depth))
        )
        self.conv_fuse = ConvNormAct(block.out, block.out, 1, 1, WRAPPER_ACTIVATION)

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsampler(x)
        x = x if self.spp is None else self.spp(x)
        side = self.conv_shortcut(x)
        return self.conv_fuse(torch.cat([self.convstem(self.conv_start(x)), side], dim=1))


class SqueezeGate(nn.Module):
    """Channel gate of the nano family: global average, linear to a quarter and back, ReLU, hard sigmoid; no biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 4, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(channels // 4, channels, bias=False),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3)))[..., None, None]


class InvertedUnit(Unit):
    """1x1 to `hidden`, depthwise k x k with the stride, 1x1 back; adds its input where shapes allow; linear at the end.

    `gate` is None where the official sequence has no slot for squeeze-excite (the neck), else whether it is filled.
    """

    def __init__(
        self,
        in_channels: int,
        out: int,
        hidden: int,
        kernel: int,
        stride: int,
        activation: str,
        gate: bool | None = None,
    ) -> None:
        super().__init__()
        slot = [] if gate is None else [SqueezeGate(hidden) if gate else nn.Identity()]
        self.conv = nn.Sequential(
            convolution(in_channels, hidden, 1),
            batch_norm(hidden),
            activation_layer(activation),
            convolution(hidden, hidden, kernel, stride, groups=hidden),
            batch_norm(hidden),
            *slot,
            activation_layer(activation),
            convolution(hidden, out, 1),
            batch_norm(out),
        )
        self.shortcut = stride == 1 and in_channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return x + y if self.shortcut else y


class InvertedStage(UnitList):
    """The units of an InvertedResidual block."""

    def __init__(
        self, block: InvertedResidual, in_channels: int, activation: str, reparam: bool, spp: nn.Module | None = None
    ) -> None:
        units = (
            InvertedUnit(
                block.out if index else in_channels, block.out, block.hidden, block.kernel,
                1 if index else block.stride, activation, block.squeeze_excite,
            )
            for index in range(block.depth)
        )  # fmt: skip
        super().__init__(units, spp)
