"""BatchNorm statistics measured anew for averaged weights, instead of the ones that lag behind the training.

Short trainings with large steps move the layers faster than running averages follow (most of all the first one, whose
inputs of 0..255 have a large mean): scores then collapse although the losses fall. Precise statistics: arXiv 2105.07576,
section 3.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from nas.data.dataset import DetectionData
from nas.data.loader import build_loader


class NormStatistics:
    """Calling it with a detector gives a copy whose BatchNorms hold the statistics of `images` training pictures.

    The pictures are spread evenly over the data, stretched without augmentation; `context` is the precision to run in.
    """

    def __init__(self, data: DetectionData, image_size: int, batch_size: int, images: int) -> None:
        chosen = np.linspace(0, len(data) - 1, min(images, len(data))).round().astype(int)
        self._loader = build_loader(
            data.subset(int(i) for i in chosen), min(batch_size, len(chosen)), image_size, train=False, cache="auto"
        )

    @torch.no_grad()
    def __call__(self, detector: Any, context: Any = None) -> Any:
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
