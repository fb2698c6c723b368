"""YOLOv9's layer aggregation: ELAN1, and GELAN's RepNCSPELAN4 made of re-parameterised CSP blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.models.baselines.conv import Conv, RepConv


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


class RepNCSP(nn.Module):
    """C3 skeleton with `n` RepNBottlenecks at half the output width."""

    def __init__(self, c1: int, c2: int, n: int = 1) -> None:
        super().__init__()
        hidden = c2 // 2
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv(c1, hidden)
        self.cv3 = Conv(2 * hidden, c2)
        self.m = nn.Sequential(*(RepNBottleneck(hidden) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class RepNCSPELAN4(ELAN1):
    """The GELAN block: ELAN1 whose two computed branches are a RepNCSP of `n` units and a 3x3 Conv."""

    def __init__(self, c1: int, c2: int, c3: int, c4: int, n: int = 1) -> None:
        super().__init__(c1, c2, c3, c4)
        self.cv2 = nn.Sequential(RepNCSP(c3 // 2, c4, n), Conv(c4, c4, 3))
        self.cv3 = nn.Sequential(RepNCSP(c4, c4, n), Conv(c4, c4, 3))
