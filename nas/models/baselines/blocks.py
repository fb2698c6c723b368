"""The blocks of the hand-drawn detectors: CSP, ELAN, attention; and the stages of our own backbones that they make.

The stages are as published whatever the backbone's activation and `reparam`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.models.baselines.conv import AConv, ADown, Conv, RepConv
from nas.spec import C2PSA as C2PSASpec
from nas.spec import GELAN, attention_heads
from nas.spec import C3k2 as C3k2Spec


class Attention(nn.Module):
    """Multi-head self-attention over all cells: half-width keys, and a depthwise 3x3 position term on the values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.value_width = width // heads
        self.key_width = self.value_width // 2
        self.qkv = Conv(width, width + 2 * self.key_width * heads, act=False)
        self.proj = Conv(width, width, act=False)
        self.pe = Conv(width, width, 3, g=width, act=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, width, height, length = x.shape
        parts = self.qkv(x).view(batch, self.heads, 2 * self.key_width + self.value_width, height * length)
        query, key, value = parts.split((self.key_width, self.key_width, self.value_width), 2)
        weights = ((query * self.key_width**-0.5).transpose(-2, -1) @ key).softmax(-1)
        mixed = (value @ weights.transpose(-2, -1)).view(batch, width, height, length)
        return self.proj(mixed + self.pe(value.reshape(batch, width, height, length)))


class PSABlock(nn.Module):
    """Attention and a two-layer 1x1 feed-forward part, each with a residual sum."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.ffn = nn.Sequential(Conv(width, 2 * width), Conv(2 * width, width, act=False))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.ffn(x)


class C2PSA(nn.Module):
    """YOLO11 block: 1x1, `n` PSA units on the second half of the channels, 1x1; heads are 64 channels wide; c1 = c2."""

    def __init__(self, c1: int, c2: int, n: int = 1) -> None:
        super().__init__()
        half = c1 // 2
        self.cv1 = Conv(c1, 2 * half)
        self.cv2 = Conv(2 * half, c2)
        self.m = nn.Sequential(*(PSABlock(half, attention_heads(half)) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        kept, attended = self.cv1(x).chunk(2, 1)
        return self.cv2(torch.cat((kept, self.m(attended)), 1))


class Bottleneck(nn.Module):
    """Two Convs with kernels `k` through `hidden` channels, plus the input if `shortcut` and the widths agree."""

    def __init__(self, c1: int, c2: int, hidden: int, shortcut: bool = True, k: tuple[int, int] = (3, 3)) -> None:
        super().__init__()
        self.cv1 = Conv(c1, hidden, k[0])
        self.cv2 = Conv(hidden, c2, k[1])
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3(nn.Module):
    """YOLOv5 block: `n` bottlenecks (kernels `k`) on one 1x1 branch, beside a second 1x1 branch, fused by 1x1."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, k: tuple[int, int] = (1, 3)) -> None:
        super().__init__()
        hidden = c2 // 2
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(c1, hidden)
        self.cv3 = Conv(2 * hidden, c2)
        self.m = nn.Sequential(*(self.unit(hidden, shortcut, k) for _ in range(n)))

    def unit(self, width: int, shortcut: bool, k: tuple[int, int]) -> nn.Module:
        return Bottleneck(width, width, width, shortcut, k)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class C3k(C3):
    """C3 with 3x3 in both convolutions of a bottleneck: the unit of the larger C3k2 blocks."""

    def __init__(self, c1: int, c2: int, n: int = 2, shortcut: bool = True) -> None:
        super().__init__(c1, c2, n, shortcut, (3, 3))


class C2f(nn.Module):
    """YOLOv8 block: 1x1, split in halves, `n` units chained from the second half, 1x1 over every intermediate map."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = False, hidden: int | None = None) -> None:
        super().__init__()
        self.hidden = hidden or c2 // 2
        self.cv1 = Conv(c1, 2 * self.hidden)
        self.cv2 = Conv((2 + n) * self.hidden, c2)
        self.m = nn.ModuleList(self.unit(shortcut) for _ in range(n))

    def unit(self, shortcut: bool) -> nn.Module:
        return Bottleneck(self.hidden, self.hidden, self.hidden, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        maps = list(self.cv1(x).chunk(2, 1))
        for unit in self.m:
            maps.append(unit(maps[-1]))
        return self.cv2(torch.cat(maps, 1))


class C3k2(C2f):
    """YOLO11 block: C2f whose unit is a halving bottleneck, a C3k of two, or (YOLO26) a bottleneck and a PSA unit."""

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        c3k: bool = False,
        hidden: int | None = None,
        attention: bool = False,
        shortcut: bool = True,
    ) -> None:
        self.c3k, self.attention = c3k, attention
        super().__init__(c1, c2, n, shortcut, hidden)

    def unit(self, shortcut: bool) -> nn.Module:
        width = self.hidden
        half = Bottleneck(width, width, width // 2, shortcut) if self.attention or not self.c3k else None
        if self.attention and half is not None:
            return nn.Sequential(half, PSABlock(width, attention_heads(width)))
        return half or C3k(width, width, 2, shortcut)


class ELAN1(nn.Module):
    """1x1 to c3 split in halves, two chained 3x3 of width c4, 1x1 to c2 over all four maps."""

    def __init__(self, c1: int, c2: int, c3: int, c4: int) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c3)
        self.cv2: nn.Module = Conv(c3 // 2, c4, 3)
        self.cv3: nn.Module = Conv(c4, c4, 3)
        self.cv4 = Conv(c3 + 2 * c4, c2)

    def forward(self, x: Tensor) -> Tensor:
        maps = list(self.cv1(x).chunk(2, 1))
        maps.append(self.cv2(maps[-1]))
        maps.append(self.cv3(maps[-1]))
        return self.cv4(torch.cat(maps, 1))


class RepNBottleneck(nn.Module):
    """RepConv then 3x3 Conv at constant width, plus the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1 = RepConv(width, width)
        self.cv2 = Conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x))


class RepNCSP(C3):
    """C3 of `n` RepNBottlenecks."""

    def unit(self, width: int, shortcut: bool, k: tuple[int, int]) -> nn.Module:
        return RepNBottleneck(width)


class RepNCSPELAN4(ELAN1):
    """The GELAN block: ELAN1 whose two computed branches are a RepNCSP of `n` units and a 3x3 Conv."""

    def __init__(self, c1: int, c2: int, c3: int, c4: int, n: int = 1) -> None:
        super().__init__(c1, c2, c3, c4)
        self.cv2 = nn.Sequential(RepNCSP(c3 // 2, c4, n), Conv(c4, c4, 3))
        self.cv3 = nn.Sequential(RepNCSP(c4, c4, n), Conv(c4, c4, 3))


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


class C3k2Stage(nn.Sequential):
    """3x3 stride-2 Conv and C3k2 of YOLO11; (B, C, H, W) -> (B, block.out, H/2, W/2)."""

    def __init__(self, block: C3k2Spec, in_channels: int, activation: str, reparam: bool) -> None:
        super().__init__(
            Conv(in_channels, block.entry, 3, 2),
            C3k2(block.entry, block.out, block.depth, block.c3k, hidden=block.hidden),
        )


class C2PSABlock(C2PSA):
    """YOLO11's attention block of the spec; (B, out, H, W) -> the same shape."""

    def __init__(self, block: C2PSASpec, in_channels: int, activation: str, reparam: bool) -> None:
        super().__init__(block.out, block.out, block.depth)
