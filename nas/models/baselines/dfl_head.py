"""Anchor-free decoupled heads: DFL (YOLOv5u, v8, v9, 11), DFL with PGI's auxiliary twin (v9), end-to-end (YOLO26)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.models.base import STRIDES, RawPrediction, at_least_float32, best_pairs, outside_autocast
from nas.models.baselines.conv import Conv, DWConv

BINS = 16


class DFL(nn.Module):
    """Expectation of the distance distribution, as a fixed 1x1 convolution with weights 0..bins-1."""

    def __init__(self, bins: int = BINS) -> None:
        super().__init__()
        self.conv = nn.Conv2d(bins, 1, 1, bias=False).requires_grad_(False)
        self.conv.weight.data[:] = torch.arange(bins, dtype=torch.float32).view(1, bins, 1, 1)

    def forward(self, logits: Tensor) -> Tensor:
        """(B, 4 * bins, A) -> distances (B, 4, A) in stride units."""
        batch, channels, anchors = logits.shape
        with outside_autocast(logits.device):
            bins = logits.view(batch, 4, channels // 4, anchors).transpose(1, 2).softmax(1)
            return self.conv(bins.to(self.conv.weight.dtype)).view(batch, 4, anchors)


def box_branch(channels: Sequence[int], bins: int, groups: int = 1) -> nn.ModuleList:
    """Two 3x3 Convs and a 1x1 to 4 * bins per level; `groups` is YOLOv9's grouping of the last two."""
    width = max(16, channels[0] // 4, 4 * bins)
    width = math.ceil(width / groups) * groups
    return nn.ModuleList(
        nn.Sequential(Conv(c, width, 3), Conv(width, width, 3, g=groups), nn.Conv2d(width, 4 * bins, 1, groups=groups))
        for c in channels
    )


def class_branch(channels: Sequence[int], width: int, num_classes: int, depthwise: bool = False) -> nn.ModuleList:
    """Two 3x3 Convs (depthwise and 1x1 pairs if `depthwise`) and a 1x1 to the classes per level."""

    def layer(c1: int, c2: int) -> nn.Module:
        return nn.Sequential(DWConv(c1, c1, 3), Conv(c1, c2)) if depthwise else Conv(c1, c2, 3)

    return nn.ModuleList(
        nn.Sequential(layer(c, width), layer(width, width), nn.Conv2d(width, num_classes, 1)) for c in channels
    )


def plain_class_width(first: int, num_classes: int) -> int:
    """Class width of the Ultralytics heads and of YOLOv9-T as published."""
    return max(first, min(num_classes, 100))


def repository_class_width(first: int, num_classes: int) -> int:
    """Class width of the YOLOv9 repository's heads."""
    return max(first, min(2 * num_classes, 128))


def set_biases(box: nn.ModuleList, classes: nn.ModuleList, box_bias: float) -> None:
    """Start with few objects: five per 640 pixel image and level, spread over the classes."""
    for box_level, class_level, stride in zip(box, classes, STRIDES, strict=True):
        assert isinstance(box_level, nn.Sequential) and isinstance(class_level, nn.Sequential)
        final_box, final_class = box_level[-1], class_level[-1]
        nn.init.constant_(final_box.bias, box_bias)  # type: ignore[arg-type]
        nn.init.constant_(final_class.bias, math.log(5 / final_class.out_channels / (640 / stride) ** 2))  # type: ignore


def prior_points(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Centres (A, 2) in pixels and strides (A,) of all cells: levels in order, row-major inside a level."""
    points, strides = [], []
    for level, stride in zip(maps, STRIDES, strict=True):
        height, width = level.shape[-2:]
        kind = torch.promote_types(level.dtype, torch.float32)  # half precision has no centres above 128 px
        xs = (torch.arange(width, device=level.device, dtype=kind) + 0.5) * stride
        ys = (torch.arange(height, device=level.device, dtype=kind) + 0.5) * stride
        grid_y, grid_x = torch.meshgrid(ys, xs, indexing="ij")
        points.append(torch.stack((grid_x, grid_y), -1).view(-1, 2))
        strides.append(torch.full((height * width,), float(stride), device=level.device, dtype=kind))
    return torch.cat(points), torch.cat(strides)


def flat(branch: nn.ModuleList, maps: Sequence[Tensor]) -> Tensor:
    """A branch's outputs of all levels, at least in float32: (B, channels, A)."""
    return at_least_float32(torch.cat([layer(level).flatten(2) for layer, level in zip(branch, maps, strict=True)], 2))


def corner_boxes(distances: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Corners (B, A, 4) in pixels from left, top, right, bottom distances (B, 4, A) in stride units."""
    scaled = distances.transpose(1, 2) * strides[:, None]
    return torch.cat((points - scaled[..., :2], points + scaled[..., 2:]), -1)


def assemble(box: Tensor, classes: Tensor, distances: Tensor, maps: Sequence[Tensor]) -> RawPrediction:
    """RawPrediction of one branch from flat outputs (B, 4 * bins, A), (B, C, A) and distances (B, 4, A)."""
    points, strides = prior_points(maps)
    batch, channels, anchors = box.shape
    logits = box.view(batch, 4, channels // 4, anchors).permute(0, 3, 1, 2)
    boxes = corner_boxes(distances, points, strides)
    return RawPrediction(classes.transpose(1, 2), logits, boxes, points, strides, list(maps))


class DFLHead(nn.Module):
    """Box branch `cv2`, class branch `cv3` and `dfl`; `groups` 4 is the YOLOv9 repository's head."""

    auxiliary = ""

    def __init__(
        self, channels: Sequence[int], num_classes: int, class_width: int, groups: int = 1, depthwise: bool = False
    ) -> None:
        super().__init__()
        self.cv2 = box_branch(channels, BINS, groups)
        self.cv3 = class_branch(channels, class_width, num_classes, depthwise)
        self.dfl = DFL()
        set_biases(self.cv2, self.cv3, 1.0)

    def raw(self, maps: Sequence[Tensor]) -> RawPrediction:
        box = flat(self.cv2, maps)
        return assemble(box, flat(self.cv3, maps), self.dfl(box), maps)

    def predict(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Scores (B, A, C) and corner boxes (B, A, 4) in pixels, from the three maps of the deployed branch."""
        raw = self.raw(maps)
        return raw.class_logits.sigmoid(), raw.boxes

    def fuse(self) -> None:
        """Nothing to drop: every branch is deployed."""


class DualDFLHead(DFLHead):
    """YOLOv9's training head: `cv2`, `cv3` on the first three maps (PGI's auxiliary branch), `cv4`, `cv5` on the rest.

    Each set has the widths of its own first map. `deployed` is the main set alone, under the names of DFLHead.
    """

    auxiliary = "pgi"

    def __init__(
        self, channels: Sequence[int], num_classes: int, class_widths: tuple[int, int], groups: int = 4
    ) -> None:
        super().__init__(channels[:3], num_classes, class_widths[0], groups)
        self.cv4 = box_branch(channels[3:], BINS, groups)
        self.cv5 = class_branch(channels[3:], class_widths[1], num_classes)
        self.dfl2 = DFL()
        set_biases(self.cv4, self.cv5, 1.0)

    def raw(self, maps: Sequence[Tensor]) -> RawPrediction:
        box = flat(self.cv4, maps[3:])
        main = assemble(box, flat(self.cv5, maps[3:]), self.dfl2(box), maps[3:])
        return main._replace(auxiliary=super().raw(maps[:3]))

    def predict(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return self.deployed().predict(maps)

    def deployed(self) -> DFLHead:
        """The main branch as an ordinary head that shares its layers."""
        head = copy.copy(self)
        head.__class__ = DFLHead  # type: ignore[assignment]
        head._modules = {"cv2": self.cv4, "cv3": self.cv5, "dfl": self.dfl2}
        return head


class EndToEndHead(nn.Module):
    """YOLO26: direct distances and two copies of both branches, the deployed one trained one-to-one, without NMS.

    In training the one-to-one branch reads detached maps, and `auxiliary` of the prediction is the one-to-many branch.
    """

    auxiliary = "one_to_many"

    def __init__(self, channels: Sequence[int], num_classes: int, class_width: int) -> None:
        super().__init__()
        self.cv2: nn.ModuleList | None = box_branch(channels, 1)
        self.cv3: nn.ModuleList | None = class_branch(channels, class_width, num_classes, depthwise=True)
        set_biases(self.cv2, self.cv3, 2.0)
        self.one2one_cv2 = copy.deepcopy(self.cv2)
        self.one2one_cv3 = copy.deepcopy(self.cv3)

    def _branch(self, box: nn.ModuleList, classes: nn.ModuleList, maps: Sequence[Tensor]) -> RawPrediction:
        distances = flat(box, maps)
        return assemble(distances, flat(classes, maps), distances, maps)

    def raw(self, maps: Sequence[Tensor]) -> RawPrediction:
        one = self._branch(self.one2one_cv2, self.one2one_cv3, [level.detach() for level in maps])
        if self.cv2 is None or self.cv3 is None:
            return one._replace(neck=list(maps))
        return one._replace(neck=list(maps), auxiliary=self._branch(self.cv2, self.cv3, maps))

    def predict(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The 300 best (box, class) pairs of the 300 best boxes: scores (B, 300, C), zero but in one class; boxes."""
        raw = self._branch(self.one2one_cv2, self.one2one_cv3, maps)
        return best_pairs(raw.class_logits.sigmoid(), raw.boxes)

    def fuse(self) -> None:
        """Drop the one-to-many branch, which only training needs."""
        self.cv2 = self.cv3 = None
