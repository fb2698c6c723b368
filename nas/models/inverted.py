"""Inverted residual units of the nano models, in backbones and in the light neck."""

from __future__ import annotations

from torch import Tensor, nn

from nas.blocks.inverted import InvertedResidual
from nas.models.layers import UnitList, activation_layer, batch_norm, convolution


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
