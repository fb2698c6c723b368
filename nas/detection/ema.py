"""Exponential moving average of a model's state: what is evaluated, exported and kept as the result."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def ema_momentum(update: int, decay: float = 0.9998, ramp: float = 2000.0) -> float:
    """Weight of the old average at an update (the first is 0): decay * (1 - exp(-update / ramp))."""
    return decay * (1 - math.exp(-update / ramp))


class Ema:
    """The average of every floating entry of a state, BatchNorm statistics included; integers are copied.

    `model` is a copy of the trained model that holds the average and is ready to evaluate.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9998, ramp: float = 2000.0) -> None:
        self.model = model.eval().requires_grad_(False)
        self.decay, self.ramp, self.updates = decay, ramp, 0

    @torch.no_grad()
    def update(self, source: nn.Module) -> None:
        """Move towards `source`'s state; the very first update copies it."""
        keep = ema_momentum(self.updates, self.decay, self.ramp)
        state = source.state_dict()
        averages: list[Tensor] = []
        currents: list[Tensor] = []
        for name, average in self.model.state_dict().items():
            current = state[name].detach()
            if average.dtype.is_floating_point:
                averages.append(average)
                currents.append(current.to(average.dtype))
            else:
                average.copy_(current)
        torch._foreach_lerp_(averages, currents, 1 - keep)
        self.updates += 1
