"""Backbones: a stem and a list of blocks, from a spec to modules that return the maps C3, C4, C5."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.lowering.csp import WRAPPER_ACTIVATION, csp_units
from nas.lowering.network import pyramid_block
from nas.lowering.residual import has_shortcut, needs_projection, squeeze_width
from nas.models.layers import (
    SPP,
    ConvNorm,
    ConvNormAct,
    Focus,
    RepConv,
    activation_layer,
    batch_norm,
    convolution,
    fold_batch_norms,
    merge_branches,
)
from nas.spec import CSP, GELAN, Backbone, Block, C3k2, InvertedResidual, Plain, Residual


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


class ResidualUnit(nn.Module):
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


class InvertedUnit(nn.Module):
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


class UnitList(nn.Module):
    """The units of one block in order (official name `block_list`)."""

    def __init__(self, units: list[nn.Module]) -> None:
        super().__init__()
        self.block_list = nn.ModuleList(units)

    def forward(self, x: Tensor) -> Tensor:
        for unit in self.block_list:
            x = unit(x)
        return x


class CSPStage(nn.Module):
    """Down-sampler, pooling pyramid if asked, then `depth` kxkx units on half the channels beside a plain half."""

    def __init__(self, block: CSP, in_channels: int, activation: str, reparam: bool, pyramid: nn.Module | None) -> None:
        super().__init__()
        half = block.out // 2
        self.downsampler = ConvNormAct(in_channels, block.out, block.kernel, 2, WRAPPER_ACTIVATION)
        self.spp = pyramid
        self.conv_shortcut = ConvNormAct(block.out, half, 1, 1, WRAPPER_ACTIVATION)
        self.conv_start = ConvNormAct(block.out, half, 1, 1, WRAPPER_ACTIVATION)
        unit = csp_units(block)
        self.convstem = nn.Sequential(
            *(ResidualUnit(unit, half, 1, index, activation, reparam) for index in range(unit.depth))
        )
        self.conv_fuse = ConvNormAct(block.out, block.out, 1, 1, WRAPPER_ACTIVATION)

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsampler(x)
        x = x if self.spp is None else self.spp(x)
        side = self.conv_shortcut(x)
        return self.conv_fuse(torch.cat([self.convstem(self.conv_start(x)), side], dim=1))


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
            pyramid = build_pyramid(spec.spp, block.out) if index == pyramid_block(spec) else None
            stages.append(build_block(block, channels, spec, pyramid))
            channels = block.out
        # The official models name this list by family.
        self.list_name = "csp_stage" if all(isinstance(block, CSP) for block in spec.blocks) else "block_list"
        self.add_module(self.list_name, nn.ModuleList(stages))
        self.out_blocks = spec.out_blocks
        if all(isinstance(block, InvertedResidual) for block in spec.blocks):
            self.apply(_initialise_mobile)

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


def build_block(block: Block, in_channels: int, spec: Backbone, pyramid: nn.Module | None = None) -> nn.Module:
    """The module of one block, with the pooling pyramid where the official models have it.

    DAMO-YOLO's SPP stands after the first unit (in a CSP stage after the down-sampler), the YOLO pyramids after
    the block.
    """
    inside = pyramid if isinstance(pyramid, SPP) else None
    module: nn.Module
    if isinstance(block, CSP):
        module, inside = CSPStage(block, in_channels, spec.activation, spec.reparam, inside), None
    elif isinstance(block, Residual | InvertedResidual):
        units = [_unit(block, in_channels, index, spec) for index in range(block.depth)]
        module, inside = UnitList(units[:1] + ([inside] if inside else []) + units[1:]), None
    elif isinstance(block, Plain):
        module = ConvNormAct(in_channels, block.out, block.kernel, block.stride, spec.activation)
    else:
        from nas.models.baselines import blocks

        if isinstance(block, GELAN):
            module = blocks.GELANStage(in_channels, block)
        elif isinstance(block, C3k2):
            module = blocks.C3k2Stage(in_channels, block)
        else:
            module = blocks.C2PSABlock(block)
    after = inside if isinstance(pyramid, SPP) else pyramid
    return module if after is None else nn.Sequential(module, after)


def _unit(block: Residual | InvertedResidual, in_channels: int, index: int, spec: Backbone) -> nn.Module:
    channels, stride = (in_channels, block.stride) if index == 0 else (block.out, 1)
    if isinstance(block, Residual):
        return ResidualUnit(block, channels, stride, index, spec.activation, spec.reparam)
    return InvertedUnit(channels, block.out, block.hidden, block.kernel, stride, spec.activation, block.squeeze_excite)


def build_pyramid(kind: str, channels: int) -> nn.Module | None:
    """The pooling pyramid of a kind on `channels`, or None."""
    if kind == "none":
        return None
    if kind == "spp":
        return SPP(channels)
    from nas.models.baselines import blocks

    return blocks.SPPF(channels, channels) if kind == "sppf" else blocks.SPPELAN(channels, channels, channels // 2)


def _initialise_mobile(module: nn.Module) -> None:
    """The nano family's start values: convolutions normal with std 1 / fan-in channels, BatchNorm biases 1e-4."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=1.0 / module.weight.shape[1])
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.constant_(module.bias, 1e-4)
