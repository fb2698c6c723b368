"""The module that is trained: a detector with its distillation adapters, frozen parts kept frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.loss.distill import Distiller
from nas.models.raw import RawPrediction


class TrainingNetwork(nn.Module):
    """One forward for everything that has gradients, as DistributedDataParallel wants it.

    Modules named in `freeze` keep weights and BatchNorm statistics.
    """

    def __init__(self, detector: Any, distiller: Distiller | None = None, freeze: Sequence[str] = ()) -> None:
        super().__init__()
        self.detector, self.distiller = detector, distiller
        self._frozen: list[str] = list(freeze)
        known = dict(detector.named_modules())
        for name in self._frozen:
            if name not in known or not name:
                top = ", ".join(child for child, _ in detector.named_children())
                raise UserError(f"trainer.freeze: the model has no module {name!r}; it has {top} and modules inside")
            known[name].requires_grad_(False)

    def train(self, mode: bool = True) -> TrainingNetwork:
        super().train(mode)
        known = dict(self.detector.named_modules())
        for name in self._frozen:
            known[name].eval()
        return self

    def forward(self, images: Tensor, teacher: list[Tensor] | None = None) -> tuple[RawPrediction, Tensor | None]:
        """Raw prediction of images (B, 3, H, W), and the distillation loss if the teacher's neck maps are given."""
        raw = self.detector.predict_raw(images)
        loss = None
        if self.distiller is not None and teacher is not None:
            loss = self.distiller(raw.neck, teacher)
        elif self.distiller is not None:  # every parameter must have a gradient in a distributed training
            loss = torch.stack([parameter.sum() for parameter in self.distiller.parameters()]).sum() * 0.0
        auxiliary = raw.auxiliary._replace(neck=[]) if raw.auxiliary is not None else None
        return raw._replace(neck=[], auxiliary=auxiliary), loss


@torch.no_grad()
def neck_channels(detector: Any, image_size: int = 64) -> list[int]:
    """Widths of the three neck maps."""
    training = detector.training
    parameter = next(detector.parameters())
    maps = detector.eval().features(torch.zeros(1, 3, image_size, image_size, device=parameter.device))["neck"]
    detector.train(training)
    return [x.shape[1] for x in maps]
