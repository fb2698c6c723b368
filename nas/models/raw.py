"""What every detector hands to its losses: undecoded outputs of all levels, flattened in prior order."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class RawPrediction(NamedTuple):
    """Outputs before the sigmoid and decoded boxes, N priors in level order (8, 16, 32), row-major inside a level.

    class_logits (B, N, C); box_logits (B, N, 4, bins): the distance distribution's logits, bins = 1 for direct distances;
    boxes (B, N, 4) decoded corners in pixels; points (N, 2) prior x, y in pixels; strides (N,);
    neck: the three neck maps (distillation reads them); auxiliary: the same of a training-only branch, or None.
    """

    class_logits: Tensor
    box_logits: Tensor
    boxes: Tensor
    points: Tensor
    strides: Tensor
    neck: list[Tensor]
    auxiliary: RawPrediction | None = None


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32; in float64 if it is so already."""
    return x if x.dtype is torch.float64 else x.float()
