"""D-FINE (n, s, m, l, x), assembled from the parts of `transformers` (Apache-2.0) under the published settings.

Inference, evaluation and export; training stays with its own repository. Class heads that only training reads are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.models.base import at_least_float32
from nas.models.baselines.detr import DETR, DeformableAttention, Input, of_transformers
from nas.models.baselines.hgnetv2 import SIZES as BACKBONES
from nas.models.baselines.hgnetv2 import settings
from nas.models.baselines.rtdetrv2 import Shapes, anchor_logits, inverse_sigmoid, tokens


@dataclass(frozen=True, slots=True)
class Size:
    """What differs between sizes (arXiv 2410.13842, repository D-FINE)."""

    backbone: str
    levels: int = 3
    encoder_width: int = 256
    encoder_ffn: int = 1024
    expansion: float = 1.0
    depth: float = 1.0
    width: int = 256
    ffn: int = 1024
    layers: int = 6
    points: tuple[int, ...] = (3, 6, 3)
    scale: float = 4.0


SIZES = {
    "n": Size("b0", 2, 128, 512, 0.34, 0.5, 128, 512, 3, (6, 6)),
    "s": Size("b0", expansion=0.5, depth=0.34, layers=3),
    "m": Size("b2", depth=0.67, layers=4),
    "l": Size("b4"),
    "x": Size("b5", encoder_width=384, encoder_ffn=2048, scale=8.0),
}


class DFINE(DETR):
    """Boxes as distributions of the distances to their sides, refined by every layer of the decoder."""

    title = "D-FINE"
    sources: ClassVar[dict[str, str]] = {"backbone": "body.backbone.model", "neck": "body.encoder"}

    def __init__(
        self, name: str, body: nn.Module, takes: Input, image_size: int | None, classes: Sequence[str]
    ) -> None:
        super().__init__(name, body, takes, image_size, classes)
        for layer in self.body.decoder.layers:
            layer.encoder_attn = DeformableAttention(layer.encoder_attn, layer.encoder_attn.num_points_list)
        last = len(self.body.decoder.layers) - 1
        for heads in (self.body.decoder.class_embed, self.body.decoder.lqe_layers):
            for index in range(last):
                heads[index] = nn.Identity()

    def maps(self, pixels: Tensor) -> list[Tensor]:
        levels = self.body.backbone.model(pixels).feature_maps
        inputs = [project(level) for project, level in zip(self.body.encoder_input_proj, levels, strict=True)]
        return list(self.body.encoder(inputs).last_hidden_state)

    def decode(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        from transformers.models.d_fine.modeling_d_fine import distance2bbox, weighting_function

        decoder = self.body.decoder
        memory, shapes = tokens(
            [project(level) for project, level in zip(self.body.decoder_input_proj, maps, strict=True)]
        )
        queries, boxes = self._select(memory, shapes)
        distances = weighting_function(decoder.max_num_bins, decoder.up, decoder.reg_scale)
        before, sides, first = torch.zeros_like(queries), None, boxes
        for index, layer in enumerate(decoder.layers):
            queries = layer(
                queries,
                position_embeddings=decoder.query_pos_head(boxes.to(queries.dtype)).clamp(-10, 10),
                reference_points=boxes[:, :, None].to(queries.dtype),
                spatial_shapes_list=shapes,
                encoder_hidden_states=memory,
            )
            if index == 0:
                first = (at_least_float32(decoder.pre_bbox_head(queries)) + inverse_sigmoid(boxes)).sigmoid()
            moved = at_least_float32(decoder.bbox_embed[index](queries + before))
            sides = moved if sides is None else sides + moved
            expected = (sides.unflatten(-1, (4, -1)).softmax(-1) * distances).sum(-1)
            boxes, before = distance2bbox(first, expected, decoder.reg_scale), queries
        return decoder.lqe_layers[-1](decoder.class_embed[-1](queries), sides.to(queries.dtype)), boxes  # type: ignore[union-attr]

    def _select(self, memory: Tensor, shapes: Shapes) -> tuple[Tensor, Tensor]:
        """Embeddings and boxes of the places with the best class logit; unlike RT-DETRv2's, no other box is computed."""
        body, (anchors, valid) = self.body, anchor_logits(shapes, memory)
        embedded = body.enc_output(valid.to(memory.dtype) * memory)
        best = body.enc_score_head(embedded).amax(-1).topk(self.takes.queries, dim=1).indices[..., None]
        queries = embedded.gather(1, best.expand(-1, -1, embedded.shape[-1]))
        around = anchors.expand(memory.shape[0], -1, -1).gather(1, best.expand(-1, -1, 4))
        return queries, (at_least_float32(body.enc_bbox_head(queries)) + around).sigmoid()


def build(name: str, image_size: int | None, classes: Sequence[str]) -> DFINE:
    """The untrained detector `d-fine-n` ... `d-fine-x`; raises UserError without `transformers`, or for a side too small."""
    config, detector, backbone = of_transformers(DFINE.title, "DFineConfig", "DFineForObjectDetection", "HGNetV2Config")
    size = SIZES[name.rpartition("-")[2]]
    strides = (8, 16, 32)[-size.levels :]
    body = detector(
        config(
            backbone_config=backbone(**settings(size.backbone, size.levels)),
            freeze_backbone_batch_norms=False,
            encoder_in_channels=list(BACKBONES[size.backbone].outer[-size.levels :]),
            feat_strides=list(strides),
            encode_proj_layers=[size.levels - 1],
            encoder_hidden_dim=size.encoder_width,
            encoder_ffn_dim=size.encoder_ffn,
            hidden_expansion=size.expansion,
            depth_mult=size.depth,
            decoder_in_channels=[size.encoder_width] * size.levels,
            num_feature_levels=size.levels,
            d_model=size.width,
            decoder_ffn_dim=size.ffn,
            decoder_layers=size.layers,
            decoder_n_points=list(size.points),
            reg_scale=size.scale,
            num_denoising=0,
            num_labels=len(classes),
            attn_implementation="eager",
        )
    ).model
    return DFINE(name, body, Input(640, strides), image_size, classes)
