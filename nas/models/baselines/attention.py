"""Position-sensitive attention of YOLO11 and YOLO26, built from 1x1 convolutions with BN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.models.baselines.conv import Conv
from nas.spec import attention_heads


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
