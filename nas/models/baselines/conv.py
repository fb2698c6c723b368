"""Convolution units of the hand-drawn detectors: with BN, re-parameterised, down-sampling, pooling pyramids, CB links.

Sub-module names follow the published state dicts, so that public weights load by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BN_EPS = 1e-3
BN_MOMENTUM = 0.03


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """The BatchNorm of every YOLO family: eps 1e-3, momentum 0.03."""
    return nn.BatchNorm2d(channels, eps=BN_EPS, momentum=BN_MOMENTUM)


@torch.no_grad()
def folded(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that equals `conv` followed by the BatchNorm `norm` (eval mode)."""
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        bias = bias + conv.bias * scale
    return conv.weight * scale[:, None, None, None], bias


def biased(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution with the geometry of `conv` and the given weight and bias."""
    made = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        (weight.shape[2], weight.shape[3]),
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        device=weight.device,
        dtype=weight.dtype,
    )
    made.weight = nn.Parameter(weight)
    made.bias = nn.Parameter(bias)
    return made


class Conv(nn.Module):
    """Convolution without bias, BatchNorm, SiLU (or nothing with `act=False`); (B, c1, H, W) -> (B, c2, H/s, W/s)."""

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2 if p is None else p, groups=g, bias=False)
        self.bn: nn.Module = batch_norm(c2)
        self.act: nn.Module = nn.SiLU(inplace=True) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))

    def fuse(self) -> None:
        """Fold the BatchNorm into the convolution, in place."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv = biased(self.conv, *folded(self.conv, self.bn))
            self.bn = nn.Identity()


class DWConv(Conv):
    """Conv with as many groups as both widths allow: depthwise when they are equal."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1) -> None:
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2))


class RepConv(nn.Module):
    """YOLOv9's re-parameterised 3x3: SiLU(3x3 Conv + 1x1 Conv), without identity branch; one 3x3 when fused."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.conv1: nn.Module = Conv(c1, c2, 3, act=False)
        self.conv2: nn.Module = Conv(c1, c2, 1, act=False)
        self.act: nn.Module = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "conv"):
            return self.act(self.conv(x))
        return self.act(self.conv1(x) + self.conv2(x))

    @torch.no_grad()
    def fuse(self) -> None:
        """Merge both branches into `conv`, one biased 3x3, in place."""
        if hasattr(self, "conv"):
            return
        assert isinstance(self.conv1, Conv) and isinstance(self.conv2, Conv)
        weight, bias = folded(self.conv1.conv, self.conv1.bn)
        small, shift = folded(self.conv2.conv, self.conv2.bn)
        self.conv = biased(self.conv1.conv, weight + F.pad(small, (1, 1, 1, 1)), bias + shift)
        del self.conv1, self.conv2


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
