"""ZeroHead: one projection per task and level, boxes as integrals of distance distributions (DAMO-YOLO section 2.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from nas.models.base import RawPrediction, at_least_float32, best_pairs
from nas.models.layers import ConvBNAct
from nas.spec import HeadSpec


class Scale(nn.Module):
    """One learnable factor of a level's regression logits."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Integral(nn.Module):
    """Expected distance of a distribution over 0..R: (B, 4, R + 1, N) -> (B, 4, N), in units of the stride."""

    project: Tensor

    def __init__(self, reg_max: int) -> None:
        super().__init__()
        self.register_buffer("project", torch.arange(reg_max + 1, dtype=torch.float32))

    def forward(self, distribution: Tensor) -> Tensor:
        return (distribution * self.project[:, None]).sum(dim=2)


class ZeroHead(nn.Module):
    """Neck maps -> scores and boxes of all priors.

    Priors lie on the cells' corners (column * stride, row * stride), not on their centres; boxes are not clipped.
    `stacked` puts that many 3x3 layers of the level's width before its two projections (report table 5).
    """

    def __init__(self, spec: HeadSpec, in_channels: Sequence[int], strides: Sequence[int], activation: str) -> None:
        super().__init__()
        self.strides, self.bins = tuple(strides), spec.reg_max + 1
        self.integral = Integral(spec.reg_max)
        if spec.stacked:
            self.convs = nn.ModuleList(_stack(width, spec.stacked, activation) for width in in_channels)
        side = (spec.kernel - 1) // 2
        self.gfl_cls = nn.ModuleList(nn.Conv2d(width, spec.num_classes, spec.kernel, 1, side) for width in in_channels)
        self.gfl_reg = nn.ModuleList(nn.Conv2d(width, 4 * self.bins, spec.kernel, 1, side) for width in in_channels)
        self.scales = nn.ModuleList(Scale() for _ in in_channels)
        for layers, bias in ((self.gfl_cls, -math.log(99.0)), (self.gfl_reg, 0.0)):  # a start probability of 0.01
            for layer in layers:
                nn.init.normal_(cast(nn.Conv2d, layer).weight, std=0.01)
                nn.init.constant_(cast(Tensor, layer.bias), bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Scores (B, N, C) after the sigmoid and corners (B, N, 4) in pixels."""
        scores, spreads = [], []
        for level, x in enumerate(maps):
            logits, spread = self.project(level, x)
            scores.append(logits.sigmoid())
            spreads.append(spread.softmax(dim=2))
        return torch.cat(scores, dim=2).transpose(1, 2), self.decode(torch.cat(spreads, dim=3), maps)

    def predict_raw(self, maps: list[Tensor]) -> RawPrediction:
        """Logits, distributions and decoded boxes of every prior."""
        projected = [self.project(level, x) for level, x in enumerate(maps)]
        logits = torch.cat([logits for logits, _ in projected], dim=2)
        spread = torch.cat([spread for _, spread in projected], dim=3)
        points, strides = self.priors(maps)
        boxes = self.decode(spread.softmax(dim=2), maps)
        return RawPrediction(logits.transpose(1, 2), spread.permute(0, 3, 1, 2), boxes, points.T, strides, maps)

    def project(self, level: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (B, C, n) and distance logits (B, 4, R + 1, n) of one level.

        Both leave in float32 (or float64) whatever the precision of the network.
        """
        if hasattr(self, "convs"):
            x = self.convs[level](x)
        logits, spread = self.gfl_cls[level](x), self.scales[level](self.gfl_reg[level](x))
        return at_least_float32(logits.flatten(2)), at_least_float32(spread.flatten(2).unflatten(1, (4, self.bins)))

    def decode(self, distribution: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Corners (B, N, 4) from the distances' distribution (B, 4, R + 1, N)."""
        points, strides = self.priors(maps)
        reach = self.integral(distribution) * strides
        return torch.cat([points - reach[:, :2], points + reach[:, 2:]], dim=1).transpose(1, 2)

    def priors(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Prior x, y (2, N) in pixels and strides (N,), levels in order, row-major inside a level."""
        device = maps[0].device
        points, strides = [], []
        for x, stride in zip(maps, self.strides, strict=True):
            rows, columns = x.shape[2:]
            y = torch.arange(rows, device=device, dtype=torch.float32) * stride
            x = torch.arange(columns, device=device, dtype=torch.float32) * stride
            points.append(torch.stack([x.repeat(rows), y.repeat_interleave(columns)]))
            strides.append(torch.full((rows * columns,), float(stride), device=device))
        return torch.cat(points, dim=1), torch.cat(strides)


class OneToOneHead(ZeroHead):
    """ZeroHead without NMS: `single`, a second one that learns one prior per object, is what is deployed.

    In training it reads detached maps, and `auxiliary` of the prediction is the one-to-many branch, which has ZeroHead's
    names, so that weights that were trained with NMS fit (two heads as in YOLOv10, arXiv 2405.14458).
    """

    def __init__(self, spec: HeadSpec, in_channels: Sequence[int], strides: Sequence[int], activation: str) -> None:
        super().__init__(spec, in_channels, strides, activation)
        self.single = ZeroHead(spec, in_channels, strides, activation)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The 300 best (box, class) pairs: scores (B, 300, C), zero but in one class, and corners (B, 300, 4)."""
        return best_pairs(*self.single(maps))

    def predict_raw(self, maps: list[Tensor]) -> RawPrediction:
        one = self.single.predict_raw([level.detach() for level in maps])
        many = super().predict_raw(maps) if hasattr(self, "gfl_cls") else None
        return one._replace(neck=maps, auxiliary=many)

    def drop_auxiliary(self) -> None:
        """Drop the one-to-many branch, which only training needs."""
        for name in ("convs", "gfl_cls", "gfl_reg", "scales", "integral"):
            self._modules.pop(name, None)


def _stack(width: int, depth: int, activation: str) -> nn.Sequential:
    return nn.Sequential(*(ConvBNAct(width, width, 3, activation=activation) for _ in range(depth)))
