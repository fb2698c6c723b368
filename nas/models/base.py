"""What every detector is: a module from images to scores and boxes, with class names, an image size and raw outputs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.models.passport import Passport
from nas.options import Resize
from nas.spec import ONE_TO_ONE_ROWS, STRIDES

#: Rows of a network without NMS.
TOP = ONE_TO_ONE_ROWS
COCO_CLASSES = tuple(
    (
        "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,"
        "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,"
        "suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
        "tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,"
        "hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,"
        "cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,"
        "toothbrush"
    ).split(",")
)


class RawPrediction(NamedTuple):
    """Outputs before the sigmoid and decoded boxes, N priors in level order (8, 16, 32), row-major inside a level.

    All in float32 (or float64) whatever precision the layers computed in.
    class_logits (B, N, C); box_logits (B, N, 4, bins): the distance distribution's logits, bins = 1 for direct distances;
    boxes (B, N, 4) decoded corners in pixels; points (N, 2) prior x, y in pixels; strides (N,);
    neck: the three neck maps (distillation reads them); auxiliary: the same of a training-only branch, or None.
    """

    class_logits: Tensor
    box_logits: Tensor
    boxes: Tensor
    points: Tensor
    strides: Tensor
    neck: list[Tensor]
    auxiliary: RawPrediction | None = None


@dataclass(frozen=True)
class Origin:
    """Where a model's entries came from: how many of `total` were kept, and the names of the fresh ones.

    Counters of batches do not count. Every loaded model carries it as `origin`; `str()` is the line to show.
    """

    source: str
    total: int
    fresh: tuple[str, ...]

    @classmethod
    def of(cls, model: nn.Module, kept: Collection[str], source: str) -> Origin:
        """Of a model that has just taken the entries named in `kept`."""
        own = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
        return cls(source, len(own), tuple(name for name in own if name not in kept))

    def __str__(self) -> str:
        some = ", ".join(self.fresh[:3]) + (", ..." if len(self.fresh) > 3 else "")
        fresh = f"; fresh: {some}" if self.fresh else ""
        return f"{self.source}: {self.total - len(self.fresh)} of {self.total} entries kept{fresh}"


class DetectorModule(nn.Module):
    """A detector of any family, ours or hand-drawn.

    Images are RGB, float, 0..255, (B, 3, H, W) with H and W multiples of 32. In eval mode `model(images)` returns
    scores (B, N, C) after the sigmoid and boxes (B, N, 4), corners in pixels, not clipped; in training mode a
    RawPrediction. With `end_to_end` the N rows are final and need no NMS. `name` is a hand-drawn detector's; `origin`
    says where loaded entries came from, `passport` what the file told of them; `resize` how pictures become its inputs,
    which with `squares_alone` are never other rectangles.
    """

    end_to_end: bool = False
    strides: tuple[int, ...] = STRIDES
    name: str
    origin: Origin
    passport: Passport | None = None
    resize: Resize = "stretch"
    squares_alone: bool = False

    def __init__(self, classes: Sequence[str], image_size: int) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.num_classes = len(self.classes)
        self.image_size = image_size

    @property
    def auxiliary(self) -> str:
        """What the branch is that only training has: "one_to_many", "pgi", or "" for none."""
        return ""

    def forward(self, images: Tensor) -> RawPrediction | tuple[Tensor, Tensor]:
        return self.predict_raw(images) if self.training else self.predict(images)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and boxes, as in eval mode."""
        raise NotImplementedError

    def predict_raw(self, images: Tensor) -> RawPrediction:
        """Logits and decoded boxes of every prior, with gradients: what losses, assigners and distillation read.

        Raises UserError for a detector that cannot be trained here.
        """
        raise NotImplementedError

    def predict_both(self, images: Tensor) -> tuple[tuple[Tensor, Tensor], RawPrediction]:
        """What `predict` gives and what `predict_raw` gives; families run the layers that both share once."""
        return self.predict(images), self.predict_raw(images)

    def features(self, images: Tensor) -> dict[str, list[Tensor]]:
        """The three maps of the "backbone" and of the "neck", strides 8, 16, 32."""
        raise NotImplementedError

    def fuse(self) -> Self:
        """The form for inference, in place and in eval mode: branches merged or dropped, every BatchNorm folded."""
        raise NotImplementedError


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor in float32; in float64 if it is so already."""
    return x if x.dtype is torch.float64 else x.float()


def outside_autocast(device: torch.device) -> AbstractContextManager:
    """A context in which float32 stays float32; where autocast is off it is none at all, so that exports do not see it."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def best_pairs(scores: Tensor, boxes: Tensor, top: int = TOP) -> tuple[Tensor, Tensor]:
    """The `top` best (box, class) pairs among the `top` best boxes, the selection of YOLO26 in the place of NMS.

    scores (B, A, C), boxes (B, A, 4) -> scores (B, top, C), zero but in one class, in descending order; boxes (B, top, 4).
    """
    num_classes = scores.shape[-1]
    keep = min(top, scores.shape[1])
    best = scores.amax(-1).topk(keep).indices
    scores = scores.gather(1, best[..., None].expand(-1, -1, num_classes))
    boxes = boxes.gather(1, best[..., None].expand(-1, -1, 4))
    values, pairs = scores.flatten(1).topk(keep)
    rows = torch.div(pairs, num_classes, rounding_mode="floor")
    boxes = boxes.gather(1, rows[..., None].expand(-1, -1, 4))
    chosen = (pairs % num_classes)[..., None]
    return torch.zeros_like(scores).scatter(2, chosen, values[..., None]), boxes


def numbered(classes: Sequence[str]) -> bool:
    """Whether the names are none, only the labels: "class 0", "class 1", ... as `class_names` gives, or "0", "1", ..."""
    labels = range(len(classes))
    return tuple(classes) in (tuple(f"class {i}" for i in labels), tuple(str(i) for i in labels))


def class_names(num_classes: int, classes: Sequence[str] | None = None) -> tuple[str, ...]:
    """`classes` checked against their number, or default names for it.

    Raises UserError if the two disagree.
    """
    if classes is not None:
        if len(classes) != num_classes:
            raise UserError(f"{len(classes)} class names were given for {num_classes} classes")
        return tuple(str(name) for name in classes)
    if num_classes == len(COCO_CLASSES):
        return COCO_CLASSES
    return tuple(f"class {index}" for index in range(num_classes))
