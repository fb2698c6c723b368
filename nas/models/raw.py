"""What every detector hands to its losses: undecoded outputs of all levels, flattened in prior order."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor


class RawPrediction(NamedTuple):
    """Outputs before the sigmoid and decoded boxes, N priors in level order (8, 16, 32), row-major inside a level.

    All in float32 (or float64) whatever precision the layers computed in.
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


def outside_autocast(device: torch.device) -> AbstractContextManager:
    """A context in which float32 stays float32; where autocast is off it is none at all, so that exports do not see it."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
