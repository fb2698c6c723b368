"""LW-DETR (t, s, m, l, x), assembled from the parts of `transformers` (Apache-2.0) under the published settings.

Inference, evaluation and export; training stays with its own repository. Only training reads more than the first of the
thirteen groups of queries; published parameters count them all, the fused form keeps one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from nas.models.base import at_least_float32
from nas.models.baselines.detr import DETR, DeformableAttention, Input, of_transformers
from nas.models.baselines.rtdetrv2 import anchor_boxes, tokens


@dataclass(frozen=True, slots=True)
class Size:
    """What differs between sizes (arXiv 2406.03459, repository LW-DETR). windows: the layers that attend inside windows;
    taken: the layers, from 0, whose outputs are read; strides: of the maps that they become."""

    vit_width: int
    layers: int = 10
    windows: tuple[int, ...] = (0, 1, 3, 6, 7, 9)
    taken: tuple[int, ...] = (2, 4, 5, 9)
    strides: tuple[int, ...] = (16,)
    width: int = 256
    heads: int = 8
    points: int = 2
    queries: int = 300


SIZES = {
    "t": Size(192, 6, (0, 2, 4), (1, 3, 5), queries=100),
    "s": Size(192),
    "m": Size(384),
    "l": Size(384, strides=(8, 32), width=384, heads=12, points=4),
    "x": Size(768, strides=(8, 32), width=384, heads=12, points=4),
}


class LWDETR(DETR):
    """A plain ViT with attention inside windows, a projector, and a decoder that keeps its boxes until the end."""

    title = "LW-DETR"
    sources: ClassVar[dict[str, str]] = {
        "backbone": "body.model.backbone.backbone",
        "neck": "body.model.backbone.projector",
    }

    def __init__(
        self, name: str, body: nn.Module, takes: Input, image_size: int | None, classes: Sequence[str]
    ) -> None:
        super().__init__(name, body, takes, image_size, classes)
        for layer in self.body.model.decoder.layers:
            points = [layer.cross_attn.n_points] * layer.cross_attn.n_levels
            layer.cross_attn = DeformableAttention(layer.cross_attn, points)

    def maps(self, pixels: Tensor) -> list[Tensor]:
        encoder = self.body.model.backbone
        maps = encoder.projector(encoder.backbone(pixels).feature_maps)
        return [maps] if isinstance(maps, Tensor) else list(maps)

    def decode(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        from transformers.models.lw_detr.modeling_lw_detr import encode_sinusoidal_position_embedding

        model, decoder = self.body.model, self.body.model.decoder
        memory, shapes = tokens(maps)
        count, width = self.takes.queries, memory.shape[-1]
        chosen = self._proposals(memory, *anchor_boxes(shapes, memory))
        boxes = moved(chosen, at_least_float32(model.reference_point_embed.weight[:count]))
        places = boxes.to(memory.dtype)
        position = decoder.ref_point_head(encode_sinusoidal_position_embedding(places, num_pos_feats=width // 2))
        # Detached: counters that watch modules refuse a view of a weight that asks for gradients.
        queries = model.query_feat.weight.detach()[:count].expand(memory.shape[0], -1, -1)
        for layer in decoder.layers:
            queries = layer(
                queries,
                position_embeddings=position,
                reference_points=places[:, :, None],
                spatial_shapes_list=shapes,
                encoder_hidden_states=memory,
            )
        queries = decoder.layernorm(queries)
        return self.body.class_embed(queries), moved(boxes, at_least_float32(self.body.bbox_embed(queries)))

    def _proposals(self, memory: Tensor, anchors: Tensor, valid: Tensor) -> Tensor:
        """Boxes (B, Q, 4) of the places with the best class logit; a place too near the rim is chosen last."""
        model = self.body.model
        embedded = model.enc_output_norm[0](model.enc_output[0](memory.masked_fill(~valid, 0.0)))
        scores = model.enc_out_class_embed[0](embedded).amax(-1).masked_fill(~valid[..., 0], float("-inf"))
        boxes = moved(anchors.masked_fill(~valid, 0.0), at_least_float32(model.enc_out_bbox_embed[0](embedded)))
        best = scores.topk(self.takes.queries, dim=1).indices[..., None]
        return boxes.gather(1, best.expand(-1, -1, 4))

    @torch.no_grad()
    def fuse(self) -> Self:
        super().fuse()
        model, count = self.body.model, self.takes.queries
        for groups in (model.enc_output, model.enc_output_norm, model.enc_out_class_embed, model.enc_out_bbox_embed):
            del groups[1:]
        for embedding in (model.reference_point_embed, model.query_feat):
            embedding.weight = nn.Parameter(embedding.weight[:count].clone(), embedding.weight.requires_grad)
        self._resize_positions(model.backbone.backbone.embeddings)
        return self

    def _resize_positions(self, embeddings: Any) -> None:
        """Interpolate the learned codes of places to this detector's image size, once and for all."""
        side, codes = self.image_size // 16, embeddings.position_embeddings
        if codes.shape[1] != side * side + 1:
            grid = embeddings.get_absolute_positions(codes, True, side, side).flatten(1, 2)
            embeddings.position_embeddings = nn.Parameter(torch.cat((codes[:, :1], grid), 1), codes.requires_grad)


def moved(boxes: Tensor, by: Tensor) -> Tensor:
    """Boxes (..., 4), centre and size, shifted in units of their sizes and scaled by exponents."""
    size = boxes[..., 2:]
    return torch.cat((by[..., :2] * size + boxes[..., :2], by[..., 2:].exp() * size), -1)


def build(name: str, image_size: int | None, classes: Sequence[str]) -> LWDETR:
    """The untrained detector `lw-detr-t` ... `lw-detr-x`; raises UserError without `transformers`, or for a side it cannot
    see."""
    config, detector, backbone = of_transformers(
        LWDETR.title, "LwDetrConfig", "LwDetrForObjectDetection", "LwDetrViTConfig"
    )
    size = SIZES[name.rpartition("-")[2]]
    body = detector(
        config(
            backbone_config=backbone(
                hidden_size=size.vit_width,
                num_hidden_layers=size.layers,
                num_attention_heads=12,
                window_block_indices=list(size.windows),
                out_indices=[layer + 1 for layer in size.taken],
                attn_implementation="eager",
            ),
            projector_scale_factors=[16 / stride for stride in size.strides],
            d_model=size.width,
            decoder_self_attention_heads=size.heads,
            decoder_cross_attention_heads=2 * size.heads,
            decoder_n_points=size.points,
            num_queries=size.queries,
            num_labels=len(classes),
            attn_implementation="eager",
        )
    )
    takes = Input(640, size.strides, size.queries, multiple=64, standardised=True)
    return LWDETR(name, body, takes, image_size, classes)
