"""Cross-stage-partial blocks of YOLOv5u (C3), YOLOv8 (C2f), YOLO11 and YOLO26 (C3k2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.models.baselines.attention import PSABlock
from nas.models.baselines.conv import Conv
from nas.spec import attention_heads


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
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, hidden, shortcut, k) for _ in range(n)))

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
