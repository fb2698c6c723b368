"""DEIMv2 (atto, femto, pico, n, s, m, l, x), assembled from the parts of `transformers` (Apache-2.0), published settings.

Inference, evaluation and export; training stays with its own repository. The decoder works as D-FINE's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.models.baselines.detr import Input, of_transformers
from nas.models.baselines.dfine import DFINE
from nas.models.baselines.hgnetv2 import SIZES as BACKBONES
from nas.models.baselines.hgnetv2 import settings


@dataclass(frozen=True, slots=True)
class Size:
    """What differs between sizes (arXiv 2509.20787, repository DEIMv2). backbone: a size of HGNetV2, or empty for DINOv3,
    then `vit` is its width, heads, inner width and registers, and `detail` the width of the convolutions beside it."""

    width: int
    encoder_ffn: int
    ffn: int
    expansion: float
    depth: float
    layers: int
    backbone: str = ""
    vit: tuple[int, int, int, int] = (0, 0, 0, 0)
    detail: int = 16
    points: tuple[int, ...] = (3, 6, 3)
    queries: int = 300
    side: int = 640

    @property
    def light(self) -> bool:
        """Whether one map of the backbone is read and the smallest decoder follows."""
        return self.queries < 300


SIZES = {
    "atto": Size(64, 0, 160, 0.34, 0.5, 3, "atto", points=(4, 2), queries=100, side=320),
    "femto": Size(96, 0, 256, 0.34, 0.5, 3, "femto", points=(4, 2), queries=150, side=416),
    "pico": Size(112, 0, 320, 0.34, 0.5, 3, "pico", points=(4, 2), queries=200),
    "n": Size(128, 512, 512, 0.34, 0.5, 3, "b0", points=(6, 6)),
    "s": Size(192, 512, 512, 0.34, 0.67, 4, vit=(192, 3, 768, 0)),
    "m": Size(256, 512, 512, 0.67, 1.0, 4, vit=(256, 4, 1024, 0)),
    "l": Size(224, 896, 1792, 1.0, 1.0, 4, vit=(384, 6, 1536, 4), detail=32),
    "x": Size(256, 1024, 2048, 1.25, 1.37, 6, vit=(384, 6, 1536, 4), detail=64),
}


class DEIMv2(DFINE):
    """D-FINE with a DINOv3 backbone and convolutions for details, or HGNetV2 in the small sizes."""

    title = "DEIMv2"
    sources: ClassVar[dict[str, str]] = {"backbone": "body.conv_encoder", "neck": "body.encoder"}

    def __init__(
        self, name: str, body: nn.Module, takes: Input, image_size: int | None, classes: Sequence[str]
    ) -> None:
        super().__init__(name, body, takes, image_size, classes)
        vit = getattr(self.body.conv_encoder, "backbone", None)
        if vit is not None:
            vit.rope_embeddings = Rotations(vit.rope_embeddings)

    def maps(self, pixels: Tensor) -> list[Tensor]:
        return list(self.body.encoder(self.body.conv_encoder(pixels)).feature_maps)


class Rotations(nn.Module):
    """The codes of places of DINOv3, computed anew for every image: cosines and sines (places, width of a head)."""

    inv_freq: Tensor

    def __init__(self, given: nn.Module) -> None:
        super().__init__()
        told: Any = given
        self.patch = int(told.config.patch_size)
        self.register_buffer("inv_freq", told.inv_freq, persistent=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        kind = self.inv_freq.dtype
        axes = [
            (torch.arange(count, device=pixels.device, dtype=kind) + 0.5) / count * 2 - 1
            for count in (pixels.shape[2] // self.patch, pixels.shape[3] // self.patch)
        ]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1)
        angles = (2 * pi * places[:, :, None] * self.inv_freq).flatten(1, 2).tile(2)
        return angles.cos().to(pixels.dtype), angles.sin().to(pixels.dtype)


def _backbone(size: Size, levels: int) -> Any:
    """The configuration of a size's backbone."""
    if size.backbone:
        (config,) = of_transformers(DEIMv2.title, "HGNetV2Config")
        return config(**settings(size.backbone, levels))
    (config,) = of_transformers(DEIMv2.title, "DINOv3ViTConfig")
    width, heads, inner, registers = size.vit
    return config(
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=inner,
        num_register_tokens=registers,
        use_gated_mlp=size.detail == 64,
        out_indices=[6, 9, 12],
        attn_implementation="eager",
    )


def build(name: str, image_size: int | None, classes: Sequence[str]) -> DEIMv2:
    """The untrained detector `deimv2-atto` ... `deimv2-x`; raises UserError without `transformers`, or for a side it cannot
    see."""
    config, detector = of_transformers(DEIMv2.title, "Deimv2Config", "Deimv2ForObjectDetection")
    size = SIZES[name.rpartition("-")[2]]
    levels = len(size.points)
    read = 1 if size.light else levels
    strides = (8, 16, 32)[-levels:]
    inputs = BACKBONES[size.backbone].outer[-read:] if size.backbone else (size.width,) * levels
    body = detector(
        config(
            backbone_config=_backbone(size, read),
            freeze_backbone_batch_norms=False,
            encoder_type="lite" if size.light else "hybrid",
            encoder_has_trailing_conv=bool(size.backbone),
            encoder_in_channels=list(inputs),
            feat_strides=list(strides),
            encode_proj_layers=[levels - 1],
            encoder_hidden_dim=size.width,
            encoder_ffn_dim=size.encoder_ffn or 1024,
            hidden_expansion=size.expansion,
            depth_mult=size.depth,
            spatial_tuning_adapter_inplanes=size.detail,
            decoder_in_channels=[size.width] * levels,
            num_feature_levels=levels,
            d_model=size.width,
            decoder_ffn_dim=size.ffn,
            decoder_layers=size.layers,
            decoder_n_points=list(size.points),
            decoder_activation_function="silu",
            num_queries=size.queries,
            use_gateway=not size.light,
            share_bbox_head=size.light,
            num_denoising=0,
            num_labels=len(classes),
            attn_implementation="eager",
        )
    ).model
    takes = Input(size.side, strides, size.queries, standardised=not size.backbone)
    return DEIMv2(name, body, takes, image_size, classes)
