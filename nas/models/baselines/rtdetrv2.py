"""RT-DETRv2 (s, m, l, x), assembled from the parts of `transformers` (Apache-2.0) under the published settings.

Inference, evaluation and export; training stays with its own repository. The size m is ResNet-50vd-m, which keeps six
decoder layers and runs three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.models.base import DetectorModule, RawPrediction, at_least_float32
from nas.models.layers import add_branch, folded

if TYPE_CHECKING:
    from transformers.models.rt_detr_v2 import modeling_rt_detr_v2 as parts

Shapes = Sequence[tuple[int, int]]
"""Height and width of each map."""
QUERIES = 300


@dataclass(frozen=True, slots=True)
class Size:
    """What differs between sizes (arXiv 2407.17140, repository rtdetrv2_pytorch)."""

    depths: tuple[int, int, int, int]
    basic: bool
    width: int = 256
    encoder_ffn: int = 1024
    expansion: float = 0.5
    decoder_layers: int = 6
    run_layers: int = 6


SIZES = {
    "s": Size((2, 2, 2, 2), basic=True, decoder_layers=3, run_layers=3),
    "m": Size((3, 4, 6, 3), basic=False, run_layers=3),
    "l": Size((3, 4, 6, 3), basic=False, expansion=1.0),
    "x": Size((3, 4, 23, 3), basic=False, width=384, encoder_ffn=2048, expansion=1.0),
}


def _transformers() -> tuple[Any, Any, Any]:
    """The three classes of `transformers` that this family is made of."""
    try:
        from transformers import RTDetrResNetConfig, RTDetrV2Config
        from transformers.models.rt_detr_v2.modeling_rt_detr_v2 import RTDetrV2Model
    except ImportError as error:
        raise UserError(
            "RT-DETRv2 needs transformers 4.49 or newer: install it with `pip install 'maenas[rtdetr]'`"
        ) from error
    return RTDetrResNetConfig, RTDetrV2Config, RTDetrV2Model


def _body(size: Size, num_classes: int) -> Any:
    resnet, config, model = _transformers()
    widths = [64, 128, 256, 512] if size.basic else [256, 512, 1024, 2048]
    backbone = resnet(
        depths=list(size.depths),
        hidden_sizes=widths,
        layer_type="basic" if size.basic else "bottleneck",
        out_indices=[2, 3, 4],
    )
    return model(
        config(
            backbone_config=backbone,
            freeze_backbone_batch_norms=not size.basic,
            encoder_in_channels=widths[1:],
            encoder_hidden_dim=size.width,
            encoder_ffn_dim=size.encoder_ffn,
            hidden_expansion=size.expansion,
            decoder_in_channels=[size.width] * 3,
            decoder_layers=size.decoder_layers,
            num_queries=QUERIES,
            num_labels=num_classes,
            attn_implementation="eager",
        )
    )


class RTDETRv2(DetectorModule):
    """End-to-end detector of 300 queries."""

    end_to_end, squares_alone = True, True

    def __init__(self, name: str, image_size: int, classes: Sequence[str]) -> None:
        super().__init__(classes, image_size)
        self.name = name
        self.size = SIZES[name[-1]]
        self.body = _body(self.size, self.num_classes)
        from transformers.models.rt_detr_v2.modeling_rt_detr_v2 import RTDetrV2MLPPredictionHead

        width, layers = self.body.config.d_model, self.size.decoder_layers
        self.class_embed = nn.ModuleList(nn.Linear(width, self.num_classes) for _ in range(layers))
        self.bbox_embed = nn.ModuleList(RTDetrV2MLPPredictionHead(width, width, 4, 3) for _ in range(layers))

    def _encoded(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Maps C3, C4, C5 of the backbone and the three maps of the hybrid encoder."""
        maps = list(self.body.backbone.model(images / 255.0).feature_maps)
        inputs = [project(level) for project, level in zip(self.body.encoder_input_proj, maps, strict=True)]
        return maps, list(self.body.encoder(inputs).last_hidden_state)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, boxes = self.decode(self._encoded(images)[1])
        return logits.sigmoid(), pixel_corners(boxes, images)

    def decode(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits (B, 300, C) and boxes (B, 300, 4), centre and size relative to the image, of encoder maps."""
        body = self.body
        memory, shapes = tokens([project(level) for project, level in zip(body.decoder_input_proj, maps, strict=True)])
        queries, references = self._select(memory, shapes)
        for index in range(self.size.run_layers):
            position = body.decoder.query_pos_head(references)
            queries = decoder_layer(body.decoder.layers[index], queries, position, memory, shapes, references)
            references = (at_least_float32(self.bbox_embed[index](queries)) + inverse_sigmoid(references)).sigmoid()
        return at_least_float32(self.class_embed[self.size.run_layers - 1](queries)), references

    def _select(self, memory: Tensor, shapes: Shapes) -> tuple[Tensor, Tensor]:
        """Embeddings and boxes of the 300 tokens with the best class logit."""
        body = self.body
        anchors, valid = anchor_logits(shapes, memory)
        embedded = body.enc_output(valid.to(memory.dtype) * memory)
        scores = body.enc_score_head(embedded).amax(-1)
        boxes = at_least_float32(body.enc_bbox_head(embedded)) + anchors
        chosen = scores.topk(min(QUERIES, scores.shape[1]), dim=1).indices[..., None]
        queries = embedded.gather(1, chosen.expand(-1, -1, embedded.shape[-1]))
        return queries, boxes.gather(1, chosen.expand(-1, -1, 4)).sigmoid()

    def predict_raw(self, images: Tensor) -> RawPrediction:
        raise UserError("RT-DETRv2 is built for inference, evaluation and export; train yolo26n or yolov9t instead")

    def features(self, images: Tensor) -> dict[str, list[Tensor]]:
        backbone, neck = self._encoded(images)
        return {"backbone": backbone, "neck": neck}

    @torch.no_grad()
    def fuse(self) -> Self:
        self.eval()
        module: Any
        for module in list(self.modules()):
            for conv, norm in (("convolution", "normalization"), ("conv", "norm")):
                if hasattr(module, conv) and hasattr(module, norm):
                    fold(module, conv, norm)
        for projection in (*self.body.encoder_input_proj, *self.body.decoder_input_proj):
            fold(projection, "0", "1")
        for block in (*self.body.encoder.fpn_blocks, *self.body.encoder.pan_blocks):
            for unit in block.bottlenecks:
                merge(unit)
        return self


def pixel_corners(boxes: Tensor, images: Tensor) -> Tensor:
    """Corners in pixels of boxes (B, Q, 4) given by centre and size relative to the image."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    height, width = images.shape[-2:]
    size = torch.tensor([width, height, width, height], device=boxes.device, dtype=boxes.dtype)
    return torch.cat((centre - half, centre + half), -1) * size


def tokens(maps: Sequence[Tensor]) -> tuple[Tensor, Shapes]:
    """The places of maps (B, D, H, W), level by level, as one sequence (B, A, D), and the height and width of each map."""
    memory = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1)
    return memory, [(level.shape[2], level.shape[3]) for level in maps]


def decoder_layer(
    layer: parts.RTDetrV2DecoderLayer, queries: Tensor, position: Tensor, memory: Tensor, shapes: Shapes, boxes: Tensor
) -> Tensor:
    """Self-attention, deformable cross-attention at the reference boxes, feed-forward; each summed and normalised."""
    attended, _ = layer.self_attn(hidden_states=queries, position_embeddings=position)
    queries = layer.self_attn_layer_norm(queries + attended)
    sampled = deformable_attention(layer.encoder_attn, queries + position, memory, shapes, boxes)
    queries = layer.encoder_attn_layer_norm(queries + sampled)
    return layer.final_layer_norm(queries + layer.mlp(queries))


def deformable_attention(
    attention: parts.RTDetrV2MultiscaleDeformableAttention,
    queries: Tensor,
    memory: Tensor,
    shapes: Shapes,
    boxes: Tensor,
) -> Tensor:
    """A weighted sum of memory values sampled at learned offsets, in units of the box, around each query's box."""
    from transformers.models.rt_detr_v2.modeling_rt_detr_v2 import multi_scale_deformable_attention_v2

    batch, count, _ = queries.shape
    points = attention.n_levels * attention.n_points
    value = attention.value_proj(memory).view(batch, memory.shape[1], attention.n_heads, -1)
    offsets = attention.sampling_offsets(queries).view(batch, count, attention.n_heads, points, 2)
    weights = attention.attention_weights(queries).view(batch, count, attention.n_heads, points).softmax(-1)
    centre, size = boxes[:, :, None, None, :2], boxes[:, :, None, None, 2:]
    places = centre + offsets * attention.n_points_scale[:, None] * size * attention.offset_scale
    sampled = multi_scale_deformable_attention_v2(value, shapes, places, weights, attention.n_points_list)  # type: ignore[arg-type]
    return attention.output_proj(sampled)


def anchor_boxes(shapes: Shapes, like: Tensor) -> tuple[Tensor, Tensor]:
    """The anchor of every place (1, A, 4), centre and size relative to the image, and whether it keeps off the outer 1 %
    (1, A, 1)."""
    kind = torch.promote_types(like.dtype, torch.float32)
    anchors = []
    for level, (height, width) in enumerate(shapes):
        xs = (torch.arange(width, device=like.device, dtype=kind) + 0.5) / width
        ys = (torch.arange(height, device=like.device, dtype=kind) + 0.5) / height
        grid_y, grid_x = torch.meshgrid(ys, xs, indexing="ij")
        side = torch.full_like(grid_x, 0.05 * 2.0**level)
        anchors.append(torch.stack((grid_x, grid_y, side, side), -1).view(1, -1, 4))
    boxes = torch.cat(anchors, 1)
    return boxes, ((boxes > 0.01) & (boxes < 0.99)).all(-1, keepdim=True)


def anchor_logits(shapes: Shapes, like: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the anchor boxes (1, A, 4), huge where they touch the outer 1 %, and their validity (1, A, 1)."""
    boxes, valid = anchor_boxes(shapes, like)
    logits = torch.log(boxes / (1 - boxes))
    return torch.where(valid, logits, torch.full_like(logits, torch.finfo(logits.dtype).max)), valid


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logit of a probability, kept finite."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def fold(module: nn.Module, conv: str, norm: str) -> None:
    """Fold a BatchNorm of a module, trainable or frozen, into the convolution before it, in place."""
    if not isinstance(getattr(module, norm), nn.Identity):
        setattr(module, conv, folded(getattr(module, conv), getattr(module, norm)))
        setattr(module, norm, nn.Identity())


def merge(unit: parts.RTDetrV2RepVggBlock) -> None:
    """Add the 1x1 branch of a RepVGG unit to its 3x3, in place; the branch is replaced by nothing."""
    if not isinstance(unit.conv2, _Zero):
        add_branch(unit.conv1.conv, unit.conv2.conv)
        unit.conv2 = _Zero()  # type: ignore[assignment]


class _Zero(nn.Module):
    """The merged branch: adds nothing."""

    def forward(self, x: Tensor) -> float:
        return 0.0
