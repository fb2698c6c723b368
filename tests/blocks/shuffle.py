"""A block of one's own, as a person writes it beside the package: value, operations and module in one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.blocks import Block, Operation
from nas.blocks.base import Size, require_block
from nas.blocks.operation import convolution, halved, pointwise


@dataclass(frozen=True, slots=True)
class Shuffle(Block):
    """A strided 3x3 to half the channels, `extra` 1x1 on it, and the concatenation of both."""

    module: ClassVar[str] = "tests.blocks.shuffle:ShuffleStage"

    out: int
    stride: int = 1
    extra: int | None = None

    def __post_init__(self) -> None:
        require_block(self)

    @property
    def depth(self) -> int:
        return 1 + (self.extra or 0)

    def operations(self, in_channels: int, size: Size, activation: str, reparam: bool) -> list[Operation]:
        half, after = self.out // 2, halved(size, self.stride)
        result = [*convolution(in_channels, half, size, 3, self.stride, activation=activation)]
        for _ in range(self.extra or 0):
            result += convolution(half, half, after, activation=activation)
        return [*result, pointwise("concat", self.out, self.out, after)]


class ShuffleStage(nn.Module):
    """The torch module with these operations."""

    def __init__(self, block: Shuffle, in_channels: int, activation: str, reparam: bool) -> None:
        super().__init__()
        half = block.out // 2

        def unit(channels: int, kernel: int, stride: int) -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(channels, half, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(half),
                nn.ReLU() if activation == "relu" else nn.SiLU(),
            )

        self.first = unit(in_channels, 3, block.stride)
        self.rest = nn.Sequential(*(unit(half, 1, 1) for _ in range(block.extra or 0)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return torch.cat([x, self.rest(x)], dim=1)
