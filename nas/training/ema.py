"""Exponential moving average of a model's state: what is evaluated, exported and kept as the result."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

#: A trained module, and entry by entry the floats of the average and of the module, then the integers of both.
_Pairs = tuple[nn.Module, list[Tensor], list[Tensor], list[Tensor], list[Tensor]]


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
        self._pairs: _Pairs | None = None

    @torch.no_grad()
    def update(self, source: nn.Module) -> None:
        """Move towards `source`'s state; the very first update copies it."""
        if self._pairs is None or self._pairs[0] is not source:
            self._pairs = self._pair(source)
        _, averages, currents, counts, current_counts = self._pairs
        currents = [current.to(own.dtype) for own, current in zip(averages, currents, strict=True)]
        torch._foreach_lerp_(averages, currents, 1 - ema_momentum(self.updates, self.decay, self.ramp))
        if counts:
            torch._foreach_copy_(counts, current_counts)
        self.updates += 1

    def _pair(self, source: nn.Module) -> _Pairs:
        """Own entries beside those of `source`, looked up once: training changes them in place."""
        state = source.state_dict()
        pairs = [(own, state[name].detach()) for name, own in self.model.state_dict().items()]
        floats = [pair for pair in pairs if pair[0].dtype.is_floating_point]
        integers = [pair for pair in pairs if not pair[0].dtype.is_floating_point]
        lists = [[pair[side] for pair in kind] for kind in (floats, integers) for side in (0, 1)]
        return source, lists[0], lists[1], lists[2], lists[3]
