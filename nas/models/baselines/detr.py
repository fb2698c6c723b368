"""What the end-to-end detectors made of the parts of `transformers` (Apache-2.0) share, beside RT-DETRv2.

They predict, are evaluated, priced and exported; training stays with their own repositories. Their networks are built from
published settings by the modules of their families; no weights are fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.models.base import DetectorModule, RawPrediction, at_least_float32
from nas.models.baselines.rtdetrv2 import Shapes, fold, merge, pixel_corners

#: Mean and deviation of ImageNet's colours, of pixels in 0..255.
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True)
class Input:
    """What a network takes: its own side in pixels, what a side must be a multiple of, the strides of the maps whose places
    its queries are chosen from, their number, and whether pixels are standardised by ImageNet's mean and deviation."""

    side: int
    strides: tuple[int, ...]
    queries: int = 300
    multiple: int = 32
    standardised: bool = False

    def places(self, height: int, width: int) -> int:
        return sum((height // stride) * (width // stride) for stride in self.strides)

    def least(self) -> int:
        """The smallest square that has as many places as queries."""
        side = self.multiple
        while self.places(side, side) < self.queries:
            side += self.multiple
        return side


def of_transformers(title: str, *names: str) -> tuple[type, ...]:
    """The classes of `transformers` that a family is made of; raises UserError where they are missing."""
    try:
        import transformers

        return tuple(getattr(transformers, name) for name in names)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{title} needs transformers 5.23 or newer: install it with `pip install 'maenas[detr]'`"
        ) from error


class DETR(DetectorModule):
    """An end-to-end detector around a network of `transformers`; a family says how maps and queries come about."""

    end_to_end, squares_alone = True, True
    title: ClassVar[str]
    #: Paths of the modules whose outputs are the maps of backbone and neck.
    sources: ClassVar[dict[str, str]]
    mean: Tensor
    deviation: Tensor

    def __init__(
        self, name: str, body: nn.Module, takes: Input, image_size: int | None, classes: Sequence[str]
    ) -> None:
        super().__init__(classes, takes.side if image_size is None else image_size)
        self.name, self.takes = name, takes
        self.body: Any = body
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False)
        self.check_side(self.image_size, self.image_size)
        for module in list(body.modules()):
            _uncached(module)

    def check_side(self, height: int, width: int) -> None:
        """Raise UserError unless the network can see an image of so many pixels."""
        takes = self.takes
        if height % takes.multiple or width % takes.multiple:
            raise UserError(f"{self.name} takes sides that are multiples of {takes.multiple}, got {height}x{width}")
        if takes.places(height, width) < takes.queries:
            raise UserError(
                f"{self.name} chooses {takes.queries} places of an image, and {height}x{width} pixels have "
                f"{takes.places(height, width)}: give at least {takes.least()} pixels"
            )

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.check_side(images.shape[2], images.shape[3])
        pixels = (images - self.mean) / self.deviation if self.takes.standardised else images / 255
        logits, boxes = self.decode(self.maps(pixels))
        return at_least_float32(logits).sigmoid(), pixel_corners(at_least_float32(boxes), images)

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """The maps that the decoder reads, of prepared pixels."""
        raise NotImplementedError

    def decode(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits (B, Q, C) and boxes (B, Q, 4), centre and size relative to the image."""
        raise NotImplementedError

    def predict_raw(self, images: Tensor) -> RawPrediction:
        raise UserError(f"{self.title} is built for inference, evaluation and export; train yolo26n or yolov9t instead")

    def features(self, images: Tensor) -> dict[str, list[Tensor]]:
        """The maps of backbone and neck: one to four, of the strides that the family has."""
        found: dict[str, list[Tensor]] = {}

        def keep(place: str) -> Any:
            return lambda module, given, result: found.update({place: _maps_of(result)})

        hooks = [self.get_submodule(path).register_forward_hook(keep(place)) for place, path in self.sources.items()]
        try:
            self.predict(images)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    @torch.no_grad()
    def fuse(self) -> Self:
        self.eval()
        for module in list(self.modules()):
            for conv, norm in (("convolution", "normalization"), ("conv", "norm"), ("0", "1")):
                if hasattr(getattr(module, norm, None), "running_mean"):
                    fold(module, conv, norm)
        for module in list(self.modules()):
            if type(module).__name__.endswith("RepVggBlock"):
                unit: Any = module
                if getattr(unit.conv2, "conv", unit.conv1.conv).kernel_size == (1, 1):
                    merge(unit)
        return self


def _maps_of(result: Any) -> list[Tensor]:
    """The maps that a module of `transformers` returns, however it wraps them."""
    maps = getattr(result, "feature_maps", None) or getattr(result, "last_hidden_state", result)
    return [maps] if isinstance(maps, Tensor) else list(maps)


def _uncached(module: nn.Module) -> None:
    """Let a module compute its position codes anew: what a trace without values computes must not be kept for others."""
    for name in dir(type(module)):
        if name.startswith("_cached_"):
            setattr(module, name, getattr(type(module), name).__wrapped__)


class DeformableAttention(nn.Module):
    """The weights of a deformable attention of `transformers` in one form for all families, without masks.

    Memory values are sampled at learned offsets, in halves of the box and in units of the points of a level, around each
    query's box, and summed by weights.
    """

    scale: Tensor

    def __init__(self, attention: nn.Module, points: Sequence[int]) -> None:
        super().__init__()
        given: Any = attention
        self.sampling_offsets, self.attention_weights = given.sampling_offsets, given.attention_weights
        self.value_proj = getattr(given, "value_proj", nn.Identity())
        self.output_proj = getattr(given, "output_proj", nn.Identity())
        self.heads, self.points = int(given.n_heads), list(points)
        scale = [0.5 / count for count in points for _ in range(count)]
        self.register_buffer("scale", torch.tensor(scale).view(-1, 1), persistent=False)

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        reference_points: Tensor,
        spatial_shapes_list: Shapes,
        position_embeddings: Tensor | None = None,
        **_: object,
    ) -> tuple[Tensor, None]:
        """Queries (B, Q, D), memory (B, A, D), boxes (B, Q, 1, 4) -> (B, Q, D)."""
        from transformers.models.rt_detr_v2.modeling_rt_detr_v2 import multi_scale_deformable_attention_v2

        queries = hidden_states if position_embeddings is None else hidden_states + position_embeddings
        batch, count, _width = queries.shape
        value = self.value_proj(encoder_hidden_states).unflatten(2, (self.heads, -1))
        offsets = self.sampling_offsets(queries).view(batch, count, self.heads, -1, 2)
        weights = self.attention_weights(queries).view(batch, count, self.heads, -1).softmax(-1)
        boxes = reference_points[:, :, None]
        places = boxes[..., :2] + offsets * self.scale * boxes[..., 2:]
        sampled = multi_scale_deformable_attention_v2(value, spatial_shapes_list, places, weights, self.points)  # type: ignore[arg-type]
        return self.output_proj(sampled), None
