"""The averaged weights: what is evaluated, exported and kept as the result, and BatchNorm statistics of its own."""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from nas.data.dataset import DetectionData
from nas.data.loader import build_loader

Model = TypeVar("Model", bound=nn.Module)

#: A trained module, and entry by entry the floats of the average and of the module, then the integers of both.
_Pairs = tuple[nn.Module, list[Tensor], list[Tensor], list[Tensor], list[Tensor]]


def ema_momentum(update: int, decay: float = 0.9998, ramp: float = 2000.0) -> float:
    """Weight of the old average at an update (the first is 0): decay * (1 - exp(-update / ramp))."""
    return decay * (1 - math.exp(-update / ramp))


class Ema(Generic[Model]):
    """The average of every floating entry of a state, BatchNorm statistics included; integers are copied.

    `model` is a copy of the trained model that holds the average and is ready to evaluate.
    """

    def __init__(self, model: Model, decay: float = 0.9998, ramp: float = 2000.0) -> None:
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


class NormStatistics:
    """Calling it with a detector gives a copy whose BatchNorms hold the statistics of `images` training pictures.

    The pictures are spread evenly over the data, stretched without augmentation; `context` is the precision to run in.
    Short trainings with large steps move the layers faster than running averages follow (most of all the first one,
    whose inputs of 0..255 have a large mean): scores then collapse although the losses fall. Precise statistics: arXiv
    2105.07576, section 3.
    """

    def __init__(self, data: DetectionData, image_size: int, batch_size: int, images: int) -> None:
        chosen = np.linspace(0, len(data) - 1, min(images, len(data))).round().astype(int)
        self._loader = build_loader(
            data.subset(int(i) for i in chosen), min(batch_size, len(chosen)), image_size, train=False, cache="auto"
        )

    @torch.no_grad()
    def __call__(self, detector: Model, context: AbstractContextManager | None = None) -> Model:
        measured = copy.deepcopy(detector).eval()
        device = next(measured.parameters()).device
        norms = [module for module in measured.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        for batch in self._loader:
            images = batch.images.to(device).float()
            with context or nullcontext():
                measured(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        return measured.eval()
