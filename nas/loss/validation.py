"""The loss on validation pictures: what the training minimises, of the network as it is deployed."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from nas.loss import LossOptions
from nas.loss.assignment import Targets
from nas.loss.detection import DetectionLoss
from nas.models.base import RawPrediction


class ValidationLoss:
    """Means of the loss terms over the pictures that are added, one object a validation.

    Normalised batch by batch, as those of a training's steps, and weighed by the pictures of each batch. Only the deployed
    branch counts, with the weight that it has at the end of a training. step_images: the batch that `scale_by_batch`
    multiplies by; class_weights: as in the training. The network runs in this process alone.
    """

    def __init__(
        self, options: LossOptions, image_size: int, step_images: int, class_weights: Tensor | None = None
    ) -> None:
        self._scale = step_images if options.scale_by_batch else 1
        plain = replace(options, scale_by_batch=False)
        self._loss = DetectionLoss(plain, image_size, alone=True, class_weights=class_weights)
        self._sums: dict[str, float] = {}
        self._images = 0

    def add(self, raw: RawPrediction, targets: Targets) -> None:
        """A batch: what the network gave for it, and its objects on the same device."""
        images = raw.class_logits.shape[0]
        terms: dict[str, Tensor] = self._loss(raw._replace(auxiliary=None), targets, progress=1.0)
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + images * self._scale * float(value.detach())
        self._images += images

    def numbers(self) -> dict[str, float]:
        """ "loss", the sum, and "loss/class", "loss/box" and "loss/dfl"."""
        means = {f"loss/{name}": value / self._images for name, value in self._sums.items()}
        return {"loss": sum(means.values())} | means
