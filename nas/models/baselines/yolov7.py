"""YOLOv7 and YOLOv7-X: E-ELAN backbone and neck, planned re-parameterisation, anchor head with implicit knowledge."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.models.base import STRIDES, RawPrediction, at_least_float32
from nas.models.baselines.conv import Conv
from nas.models.baselines.graph import Graph
from nas.models.layers import Branches, activation_layer, batch_norm, convolution, folded

#: Width and height in pixels, three per level.
ANCHORS = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)


class PlannedRepConv(Branches):
    """SiLU(3x3 conv + BN, plus 1x1 conv + BN, plus BN of the input if the widths agree); one 3x3 when merged."""

    branches = ("rbr_dense", "rbr_1x1", "rbr_identity")

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.rbr_identity = batch_norm(c1) if c1 == c2 else None
        self.rbr_dense = nn.Sequential(convolution(c1, c2, 3), batch_norm(c2))
        self.rbr_1x1 = nn.Sequential(convolution(c1, c2, 1), batch_norm(c2))
        self.act = activation_layer("silu")

    def branch(self, name: str) -> nn.Conv2d:
        unit = getattr(self, name)
        if name != "rbr_identity":
            return folded(*unit)
        width, place = unit.num_features, {"device": unit.weight.device, "dtype": unit.weight.dtype}
        same = nn.utils.skip_init(nn.Conv2d, width, width, 1, bias=False, **place)
        nn.init.dirac_(same.weight)
        return folded(same, unit)


class Implicit(nn.Module):
    """A learned vector (1, c, 1, 1), drawn around `mean` with deviation 0.02."""

    def __init__(self, channels: int, mean: float) -> None:
        super().__init__()
        self.implicit = nn.Parameter(torch.empty(1, channels, 1, 1).normal_(mean, 0.02))


class AnchorHead(nn.Module):
    """Per level im * (1x1(ia + x)) with 3 * (5 + classes) channels, decoded against three anchors per cell.

    When fused, the convolutions absorb the implicit vectors, which stay listed with their neutral values 0 and 1
    (as in the published deployed files). Training needs an anchor-based assignment of its own: `raw` refuses.
    """

    auxiliary = ""
    anchors: Tensor
    anchor_grid: Tensor

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.outputs = 5 + num_classes
        pixels = torch.tensor(ANCHORS, dtype=torch.float32)
        self.register_buffer("anchors", pixels / torch.tensor(STRIDES, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("anchor_grid", pixels.view(3, 1, 3, 1, 1, 2))
        self.m = nn.ModuleList(nn.Conv2d(c, 3 * self.outputs, 1) for c in channels)
        self.ia = nn.ModuleList(Implicit(c, 0.0) for c in channels)
        self.im = nn.ModuleList(Implicit(3 * self.outputs, 1.0) for _ in channels)
        self.fused = False
        with torch.no_grad():
            for conv, stride in zip(self.m, STRIDES, strict=True):
                assert isinstance(conv, nn.Conv2d) and conv.bias is not None
                bias = conv.bias.view(3, self.outputs)
                bias[:, 4] += math.log(8 / (640 / stride) ** 2)
                bias[:, 5:] += math.log(0.6 / (num_classes - 0.99))

    def level_outputs(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Raw outputs per level, at least in float32, (B, 3, H, W, 5 + classes): x, y, w, h, objectness, classes."""
        result = []
        for level, (conv, add, multiply) in enumerate(zip(self.m, self.ia, self.im, strict=True)):
            assert isinstance(add, Implicit) and isinstance(multiply, Implicit)
            x = maps[level]
            y = at_least_float32(conv(x) if self.fused else multiply.implicit * conv(add.implicit + x))
            batch, _, height, width = y.shape
            result.append(y.view(batch, 3, self.outputs, height, width).permute(0, 1, 3, 4, 2))
        return result

    def decoded(self, maps: Sequence[Tensor]) -> Tensor:
        """(B, 3 * cells, 5 + classes): centre, size in pixels, objectness, class probabilities; anchor, y, x order."""
        rows = []
        for y, stride, sizes in zip(self.level_outputs(maps), STRIDES, self.anchor_grid, strict=True):
            batch, _, height, width, outputs = y.shape
            xs = torch.arange(width, device=y.device, dtype=y.dtype)
            ys = torch.arange(height, device=y.device, dtype=y.dtype)
            grid = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], -1)
            xy, wh, rest = y.sigmoid().split((2, 2, outputs - 4), -1)
            level = torch.cat(((2 * xy - 0.5 + grid) * stride, (2 * wh) ** 2 * sizes, rest), -1)
            rows.append(level.reshape(batch, -1, outputs))
        return torch.cat(rows, 1)

    def predict(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Scores (objectness times class) and corner boxes in pixels."""
        xy, wh, objectness, classes = self.decoded(maps).split((2, 2, 1, self.outputs - 5), -1)
        return objectness * classes, torch.cat((xy - wh / 2, xy + wh / 2), -1)

    def raw(self, maps: Sequence[Tensor]) -> RawPrediction:
        raise UserError("YOLOv7's anchor-based head cannot be trained here; use yolov9c or yolo11l instead")

    @torch.no_grad()
    def fuse(self) -> None:
        """Absorb the implicit vectors into the convolutions, in place."""
        for conv, add, multiply in zip(self.m, self.ia, self.im, strict=True):
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            assert isinstance(add, Implicit) and isinstance(multiply, Implicit)
            scale = multiply.implicit.view(-1)
            conv.bias.add_((conv.weight * add.implicit).sum((1, 2, 3))).mul_(scale)
            conv.weight.mul_(scale[:, None, None, None])
            add.implicit.zero_()
            multiply.implicit.fill_(1.0)
        self.fused = True


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
        self.insert(nn.MaxPool2d(2, 2))
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


def yolov7_graph(name: str, num_classes: int) -> tuple[Graph, tuple[int, ...]]:
    """The 106 rows of YOLOv7 or the 122 of YOLOv7-X, and those of C3, C4, C5."""
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
    c3, c4, c5 = rows

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
    return graph, (c3, c4, c5)
