"""DetectionModel: backbone, neck and head of a spec as one module, from an image to scores and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from nas.models.backbone import BackboneModule
from nas.models.classes import class_names
from nas.models.head import ZeroHead
from nas.models.layers import fold_batch_norms, merge_branches
from nas.models.neck import RepGFPN
from nas.models.raw import RawPrediction
from nas.spec import DetectorSpec


class DetectionModel(nn.Module):
    """A detector of the DAMO-YOLO family.

    Images are RGB, float, 0..255, (B, 3, H, W) with H and W multiples of 32. In eval mode `model(images)` returns
    scores (B, N, C) after the sigmoid and boxes (B, N, 4), corners in pixels, not clipped; in training mode a
    RawPrediction.
    """

    end_to_end = False
    strides = (8, 16, 32)

    def __init__(self, spec: DetectorSpec, classes: Sequence[str] | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.classes = class_names(spec.head.num_classes, classes)
        self.num_classes = spec.head.num_classes
        self.image_size = spec.image_size
        self.backbone = BackboneModule(spec.backbone)
        self.neck = RepGFPN(spec.neck, spec.backbone.out_channels)
        self.head = ZeroHead(spec.head, spec.neck.out, self.strides, spec.neck.activation)

    def forward(self, images: Tensor) -> RawPrediction | tuple[Tensor, Tensor]:
        if self.training:
            return self.predict_raw(images)
        return self.head(self.neck(self.backbone(images)))

    def predict_raw(self, images: Tensor) -> RawPrediction:
        """Logits and decoded boxes of every prior, with gradients: what losses, assigners and distillation read."""
        maps = self.neck(self.backbone(images))
        return self.head.predict_raw(maps)

    def features(self, images: Tensor) -> dict[str, list[Tensor]]:
        """The three maps of the backbone and of the neck, strides 8, 16, 32."""
        maps = self.backbone(images)
        return {"backbone": maps, "neck": self.neck(maps)}

    def merge(self) -> DetectionModel:
        """Sum parallel branches into single convolutions, in place: the form of the published parameter counts."""
        merge_branches(self)
        return self.eval()

    def fuse(self) -> DetectionModel:
        """Merge the branches and fold every BatchNorm into its convolution, in place: the form for inference."""
        self.merge()
        fold_batch_norms(self)
        return self.eval()


def build_detector(
    spec: DetectorSpec, num_classes: int | None = None, classes: Sequence[str] | None = None
) -> DetectionModel:
    """A freshly initialised detector of `spec`, for `num_classes` classes or for the named `classes`.

    Raises UserError if the names and the number disagree, SpecError for a class number below one.
    """
    if num_classes is None:
        num_classes = len(classes) if classes is not None else spec.head.num_classes
    return DetectionModel(replace(spec, head=replace(spec.head, num_classes=num_classes)), classes)
