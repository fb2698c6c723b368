"""YOLOv7 and YOLOv7-X: E-ELAN backbone and neck, planned re-parameterisation, anchor head with implicit knowledge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.models.baselines.anchor_head import AnchorHead, PlannedRepConv
from nas.models.baselines.conv import Conv
from nas.models.baselines.graph import Graph

#: Rows of C3, C4, C5.
BACKBONE_ROWS = {"yolov7": (24, 37, 50), "yolov7x": (28, 43, 58)}


class SPPCSPC(nn.Module):
    """YOLOv7's pooling pyramid: parallel 5, 9, 13 max poolings inside a cross-stage-partial block of width c2."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c2)
        self.cv2 = Conv(c1, c2)
        self.cv3 = Conv(c2, c2, 3)
        self.cv4 = Conv(c2, c2)
        self.m = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))
        self.cv5 = Conv(4 * c2, c2)
        self.cv6 = Conv(c2, c2, 3)
        self.cv7 = Conv(2 * c2, c2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv4(self.cv3(self.cv1(x)))
        y = self.cv6(self.cv5(torch.cat([y, *(pool(y) for pool in self.m)], 1)))
        return self.cv7(torch.cat((y, self.cv2(x)), 1))


class _Drawing(Graph):
    """Graph with the shorthand of this family."""

    def conv(self, width: int, kernel: int = 1, stride: int = 1, source: int = -1) -> int:
        return self.add(Conv, width, kernel, stride, source=source)

    def elan(self, hidden: int, out: int, chain: int, width: int | None = None) -> int:
        """E-ELAN: two 1x1 branches and a chain of 3x3 on the second; a chain of another `width` keeps all its maps."""
        u = self.conv(hidden)
        v = self.conv(hidden, source=-2)
        links = [self.conv(width or hidden, 3) for _ in range(chain)]
        kept = links if width else links[1::2]
        self.concat(*reversed(kept), v, u)
        return self.conv(out)

    def transition(self, width: int, *laterals: int) -> int:
        """Down-sampling by max pooling and by a strided 3x3, side by side, with lateral maps appended."""
        self.pool()
        self.conv(width)
        self.conv(width, source=-3)
        self.conv(width, 3, 2)
        return self.concat(-1, -3, *laterals)

    def lift(self, width: int, lateral: int) -> int:
        """1x1, upsampling, and the 1x1 of a lateral map before it in the concatenation."""
        self.conv(width)
        self.upsample()
        self.conv(width, source=lateral)
        return self.concat(-1, -2)


def yolov7_graph(name: str, num_classes: int) -> Graph:
    """The 106 rows of YOLOv7 or the 122 of YOLOv7-X."""
    large = name == "yolov7x"
    graph = _Drawing()
    unit, chain = (40, 6) if large else (32, 4)

    def neck(hidden: int, out: int) -> int:
        return graph.elan(hidden, out, chain, None if large else hidden // 2)

    graph.conv(unit, 3)
    graph.conv(2 * unit, 3, 2)
    graph.conv(2 * unit, 3)
    graph.conv(4 * unit, 3, 2)
    graph.elan(64, 8 * unit, chain)
    rows = []
    for width, hidden, out in ((4 * unit, 128, 16 * unit), (8 * unit, 256, 32 * unit), (16 * unit, 256, 32 * unit)):
        graph.transition(width)
        rows.append(graph.elan(hidden, out, chain))
    c3, c4, _ = rows

    n5 = graph.add(SPPCSPC, 16 * unit)
    graph.lift(8 * unit, c4)
    n4 = neck(256, 8 * unit)
    graph.lift(4 * unit, c3)
    p3 = neck(128, 4 * unit)
    graph.transition(4 * unit, n4)
    p4 = neck(256, 8 * unit)
    graph.transition(8 * unit, n5)
    p5 = neck(512, 16 * unit)

    outputs: Sequence[tuple[int, int]] = ((8 * unit, p3), (16 * unit, p4), (32 * unit, p5))
    if large:
        heads = [graph.conv(width, 3, source=row) for width, row in outputs]
    else:
        heads = [graph.add(PlannedRepConv, width, source=row) for width, row in outputs]
    graph.head(AnchorHead([graph.width(row) for row in heads], num_classes), heads)
    return graph
