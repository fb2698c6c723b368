"""YOLOv7's anchor head with implicit knowledge, and its re-parameterised convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UserError
from nas.models.baselines.conv import batch_norm, biased, folded
from nas.models.baselines.dfl_head import STRIDES
from nas.models.raw import RawPrediction, at_least_float32

#: Width and height in pixels, three per level.
ANCHORS = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)


class PlannedRepConv(nn.Module):
    """SiLU(3x3 conv + BN, plus 1x1 conv + BN, plus BN of the input if the widths agree); one 3x3 when fused."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.rbr_identity = batch_norm(c1) if c1 == c2 else None
        self.rbr_dense = nn.Sequential(nn.Conv2d(c1, c2, 3, 1, 1, bias=False), batch_norm(c2))
        self.rbr_1x1 = nn.Sequential(nn.Conv2d(c1, c2, 1, bias=False), batch_norm(c2))

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "rbr_reparam"):
            return F.silu(self.rbr_reparam(x))
        y = self.rbr_dense(x) + self.rbr_1x1(x)
        return F.silu(y if self.rbr_identity is None else y + self.rbr_identity(x))

    @torch.no_grad()
    def fuse(self) -> None:
        """Merge the branches into `rbr_reparam`, in place."""
        if hasattr(self, "rbr_reparam"):
            return
        dense, small = self.rbr_dense[0], self.rbr_1x1[0]
        assert isinstance(dense, nn.Conv2d) and isinstance(small, nn.Conv2d)
        weight, bias = folded(dense, self.rbr_dense[1])
        small_weight, small_bias = folded(small, self.rbr_1x1[1])
        weight, bias = weight + F.pad(small_weight, (1, 1, 1, 1)), bias + small_bias
        if self.rbr_identity is not None:
            identity = nn.Conv2d(dense.in_channels, dense.in_channels, 3, device=weight.device, dtype=weight.dtype)
            nn.init.dirac_(identity.weight)
            nn.init.zeros_(identity.bias)  # type: ignore[arg-type]
            own_weight, own_bias = folded(identity, self.rbr_identity)
            weight, bias = weight + own_weight, bias + own_bias
        self.rbr_reparam = biased(dense, weight, bias)
        del self.rbr_dense, self.rbr_1x1, self.rbr_identity


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
