"""DetectionModel: backbone, neck and head of a spec as one module, from an image to scores and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from torch import Tensor

from nas.models.backbone import BackboneModule
from nas.models.base import DetectorModule, RawPrediction, class_names
from nas.models.head import OneToOneHead, ZeroHead
from nas.models.layers import fold_batch_norms, merge_branches
from nas.models.neck import RepGFPN
from nas.spec import DetectorSpec


class DetectionModel(DetectorModule):
    """A detector of the DAMO-YOLO family."""

    def __init__(self, spec: DetectorSpec, classes: Sequence[str] | None = None) -> None:
        super().__init__(class_names(spec.head.num_classes, classes), spec.image_size)
        self.spec = spec
        self.backbone = BackboneModule(spec.backbone)
        self.neck = RepGFPN(spec.neck, spec.backbone.out_channels)
        head = OneToOneHead if spec.head.one_to_one else ZeroHead
        self.head = head(spec.head, spec.neck.out, self.strides, spec.neck.activation)
        self.end_to_end = spec.head.one_to_one

    @property
    def auxiliary(self) -> str:
        return "one_to_many" if self.spec.head.one_to_one else ""

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.neck(self.backbone(images)))

    def predict_raw(self, images: Tensor) -> RawPrediction:
        return self.head.predict_raw(self.neck(self.backbone(images)))

    def predict_both(self, images: Tensor) -> tuple[tuple[Tensor, Tensor], RawPrediction]:
        maps = self.neck(self.backbone(images))
        return self.head(maps), self.head.predict_raw(maps)

    def features(self, images: Tensor) -> dict[str, list[Tensor]]:
        maps = self.backbone(images)
        return {"backbone": maps, "neck": self.neck(maps)}

    def merge(self) -> Self:
        """Sum parallel branches into single convolutions, and drop what only training needs, in place.

        This is the form of the published parameter counts.
        """
        merge_branches(self)
        if isinstance(self.head, OneToOneHead):
            self.head.drop_auxiliary()
        return self.eval()

    def fuse(self) -> Self:
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
