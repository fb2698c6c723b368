"""RF-DETR (n, s, m), assembled from the parts of `transformers` (Apache-2.0) under the published settings.

Inference, evaluation and export; training stays with its own repository. The decoder and its groups are LW-DETR's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from nas.models.baselines.detr import Input, of_transformers
from nas.models.baselines.lwdetr import LWDETR


@dataclass(frozen=True, slots=True)
class Size:
    """What differs between sizes (arXiv 2511.09554, repository rf-detr): the image's side and the decoder's layers."""

    side: int
    layers: int


SIZES = {"n": Size(384, 2), "s": Size(512, 3), "m": Size(576, 4)}
PATCH, WINDOWS = 16, 2


class RFDETR(LWDETR):
    """The design of LW-DETR on a DINOv2 backbone with windows, one map of stride 16."""

    title = "RF-DETR"

    def _resize_positions(self, embeddings: Any) -> None:
        side, codes = self.image_size // PATCH, embeddings.position_embeddings
        if codes.shape[1] != side * side + 1:
            tokens = codes.new_empty(1, side * side + 1, codes.shape[2])  # only its shape is read
            grid = embeddings.interpolate_pos_encoding(tokens, self.image_size, self.image_size)
            embeddings.position_embeddings = nn.Parameter(grid, codes.requires_grad)


def build(name: str, image_size: int | None, classes: Sequence[str]) -> RFDETR:
    """The untrained detector `rf-detr-n`, `-s` or `-m`; raises UserError without `transformers`, or for a side it cannot
    see."""
    config, detector, backbone = of_transformers(
        RFDETR.title, "RfDetrConfig", "RfDetrForObjectDetection", "RfDetrDinov2Config"
    )
    size = SIZES[name.rpartition("-")[2]]
    body = detector(
        config(
            backbone_config=backbone(
                hidden_size=384,
                num_attention_heads=6,
                image_size=size.side,
                patch_size=PATCH,
                num_windows=WINDOWS,
                out_indices=[3, 6, 9, 12],
                attn_implementation="eager",
            ),
            decoder_layers=size.layers,
            decoder_n_points=2,
            num_labels=len(classes),
            attn_implementation="eager",
        )
    )
    takes = Input(size.side, (PATCH,), multiple=PATCH * WINDOWS, standardised=True)
    return RFDETR(name, body, takes, image_size, classes)
