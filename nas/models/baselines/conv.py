"""Convolution units of the hand-drawn detectors: with BN, re-parameterised, down-sampling, pooling pyramids, CB links.

Sub-module names follow the published state dicts, so that public weights load by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.models.layers import Branches, ConvBNAct, activation_layer


class Conv(ConvBNAct):
    """Convolution without bias, BatchNorm, SiLU (or nothing with `act=False`); (B, c1, H, W) -> (B, c2, H/s, W/s)."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, g: int = 1, act: bool = True) -> None:
        super().__init__(c1, c2, k, s, "silu" if act else "none", g)


class DWConv(Conv):
    """Conv with as many groups as both widths allow: depthwise when they are equal."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1) -> None:
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2))


class RepConv(Branches):
    """YOLOv9's re-parameterised 3x3: SiLU(3x3 Conv + 1x1 Conv), without identity branch."""

    branches = ("conv1", "conv2")
    merged = "conv"

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.conv1 = Conv(c1, c2, 3, act=False)
        self.conv2 = Conv(c1, c2, 1, act=False)
        self.act = activation_layer("silu")


class AConv(nn.Module):
    """YOLOv9 down-sampler: 2x2 average pooling at stride 1, then a 3x3 Conv at stride 2."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c2, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv1(F.avg_pool2d(x, 2, 1))


class ADown(nn.Module):
    """YOLOv9 down-sampler: 2x2 average pooling, then half the channels by 3x3 stride 2, half by max pooling and 1x1."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.cv1 = Conv(c1 // 2, c2 // 2, 3, 2)
        self.cv2 = Conv(c1 // 2, c2 // 2)

    def forward(self, x: Tensor) -> Tensor:
        first, second = F.avg_pool2d(x, 2, 1).chunk(2, 1)
        return torch.cat((self.cv1(first), self.cv2(F.max_pool2d(second, 3, 2, 1))), 1)


def _pyramid(x: Tensor, kernel: int) -> Tensor:
    """`x` beside three max poolings chained after it: (B, C, H, W) -> (B, 4C, H, W)."""
    maps = [x]
    for _ in range(3):
        maps.append(F.max_pool2d(maps[-1], kernel, 1, kernel // 2))
    return torch.cat(maps, 1)


class SPPF(nn.Module):
    """Fast spatial pyramid pooling; `residual` is YOLO26's form: linear first Conv and a sum with the input."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 5, residual: bool = False) -> None:
        super().__init__()
        self.cv1 = Conv(channels_in, channels_in // 2, act=not residual)
        self.cv2 = Conv(channels_in // 2 * 4, channels_out)
        self.kernel = kernel
        self.residual = residual and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(_pyramid(self.cv1(x), self.kernel))
        return x + y if self.residual else y


class SPPELAN(nn.Module):
    """YOLOv9's pooling pyramid: 1x1 to c3, three chained 5x5 max poolings, 1x1 to c2."""

    def __init__(self, c1: int, c2: int, c3: int) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c3)
        self.cv5 = Conv(4 * c3, c2)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv5(_pyramid(self.cv1(x), 5))


class CBLinear(nn.Module):
    """Biased 1x1 convolution split into the given widths: the sending end of YOLOv9's composite backbone links."""

    def __init__(self, c1: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.conv = nn.Conv2d(c1, sum(widths), 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.conv(x).split(self.widths, 1)


class CBFuse(nn.Module):
    """Sum of the `picks`-th pieces of the linked maps, resized to the last input, and of the last input."""

    def __init__(self, picks: Sequence[int]) -> None:
        super().__init__()
        self.picks = tuple(picks)

    def forward(self, inputs: Sequence[Tensor | tuple[Tensor, ...]]) -> Tensor:
        total = inputs[-1]
        assert isinstance(total, Tensor)
        size = total.shape[2:]
        for pieces, pick in zip(inputs, self.picks, strict=False):
            total = total + F.interpolate(pieces[pick], size=size, mode="nearest")
        return total


class Concat(nn.Module):
    """Channel concatenation of several maps."""

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(inputs), 1)
