"""The common shell of the hand-drawn detectors: rows and a head behind the interface of our own models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas.models.baselines.blocks import fuse_units
from nas.models.baselines.dfl_head import STRIDES, DualDFLHead
from nas.models.baselines.graph import Graph, prune, run_rows
from nas.models.raw import RawPrediction


class BaselineDetector(nn.Module):
    """Rows `model.0 ... model.n` as published, the last of them the head.

    Images are RGB 0..255 (B, 3, H, W) with sides that are multiples of 32. `auxiliary` names a training-only second
    branch: "" (none), "pgi" (YOLOv9) or "one_to_many" (YOLO26). `backbone` are the rows of the maps C3, C4, C5.
    """

    strides = STRIDES

    def __init__(
        self,
        name: str,
        graph: Graph,
        backbone: Sequence[int],
        num_classes: int,
        image_size: int,
        classes: Sequence[str],
        end_to_end: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.model = nn.Sequential(*graph.modules)
        self.sources = list(graph.sources)
        self.backbone = tuple(backbone)
        self.num_classes = num_classes
        self.image_size = image_size
        self.classes = tuple(classes)
        self.end_to_end = end_to_end

    @property
    def head(self) -> Any:
        return self.model[-1]

    @property
    def auxiliary(self) -> str:
        return self.head.auxiliary

    def _rows(self, images: Tensor, wanted: Sequence[int]) -> list[Tensor]:
        return run_rows(self.model, self.sources, images / 255.0, wanted)

    def forward(self, images: Tensor) -> RawPrediction | tuple[Tensor, Tensor]:
        """Training: RawPrediction. Evaluation: scores (B, N, C) and corner boxes (B, N, 4) in pixels, not clipped.

        N is the number of priors, or at most 300 ranked detections if `end_to_end`.
        """
        if self.training:
            return self.predict_raw(images)
        return self.head.predict(self._rows(images, self.sources[-1][-3:]))

    def predict_raw(self, images: Tensor) -> RawPrediction:
        """Undecoded outputs of the main branch, with those of a training-only branch in `auxiliary`.

        Raises UserError for the anchor-based YOLOv7, whose outputs have no such form.
        """
        return self.head.raw(self._rows(images, self.sources[-1]))

    def features(self, images: Tensor) -> dict[str, list[Tensor]]:
        """The three maps of the "backbone" and of the "neck" (what the deployed head reads)."""
        maps = self._rows(images, [*self.backbone, *self.sources[-1][-3:]])
        return {"backbone": maps[:3], "neck": maps[3:]}

    @torch.no_grad()
    def fuse(self) -> BaselineDetector:
        """The deployed form, in place and in evaluation mode: training branches dropped, others merged, BN folded."""
        self.eval()
        self.drop_auxiliary()
        self.head.fuse()
        fuse_units(self)
        return self

    def drop_auxiliary(self) -> None:
        """Remove PGI's rows and head branch, in place; the rest takes the names of the published inference form."""
        if isinstance(self.head, DualDFLHead):
            self.sources[-1] = self.sources[-1][3:]
            self.model[-1] = self.head.deployed()
            self.model, self.sources, renumbered = prune(self.model, self.sources)
            self.backbone = tuple(renumbered[row] for row in self.backbone)
