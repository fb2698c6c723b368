"""GELAN, the hand-drawn backbones of YOLOv9 (arXiv 2402.13616), and a space of backbones around them.

A stage is a down-sampler to `entry` channels, then ELAN1 or RepNCSPELAN4; the space frees every width, the ratios
between them, the depth and the kind of down-sampler. YOLOv9-e, which has two linked columns, is no such chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le, MinLen

from nas.options import DISTINCT
from nas.spec import GELAN, Backbone, Block, DownKind, Stem
from search_spaces.base import Factors, round_to
from search_spaces.stages import StageSpace

Row = tuple[int, int, int, int, int, DownKind]


def _backbone(stem: int, *rows: Row) -> Backbone:
    blocks = tuple(GELAN(out, entry, hidden, inner, depth, 2, down) for out, entry, hidden, inner, depth, down in rows)
    return Backbone(Stem("conv", stem), blocks, (1, 2, 3), "sppelan", "silu")


#: As published, with their SPPELAN: out, entry, hidden, inner, depth, down-sampler of each stage.
BACKBONES: dict[str, Backbone] = {
    "yolov9-t-backbone": _backbone(
        16,
        (32, 32, 32, 16, 0, "conv"),
        (64, 64, 64, 32, 3, "aconv"),
        (96, 96, 96, 48, 3, "aconv"),
        (128, 128, 128, 64, 3, "aconv"),
    ),
    "yolov9-s-backbone": _backbone(
        32,
        (64, 64, 64, 32, 0, "conv"),
        (128, 128, 128, 64, 3, "aconv"),
        (192, 192, 192, 96, 3, "aconv"),
        (256, 256, 256, 128, 3, "aconv"),
    ),
    "yolov9-m-backbone": _backbone(
        32,
        (128, 64, 128, 64, 1, "conv"),
        (240, 240, 240, 120, 1, "aconv"),
        (360, 360, 360, 180, 1, "aconv"),
        (480, 480, 480, 240, 1, "aconv"),
    ),
    "yolov9-c-backbone": _backbone(
        64,
        (256, 128, 128, 64, 1, "conv"),
        (512, 256, 256, 128, 1, "adown"),
        (512, 512, 512, 256, 1, "adown"),
        (512, 512, 512, 256, 1, "adown"),
    ),
}


Units = Annotated[tuple[Annotated[int, Ge(0), Le(100)], ...], MinLen(1), DISTINCT]


@dataclass(frozen=True, kw_only=True)
class GELANSpace(StageSpace[tuple[int, float, float, float, DownKind]]):
    """Backbones of GELAN stages.

    depths: units of a RepNCSP, 0 for ELAN1, allowed in the first stage and in the others; entries and hiddens: ratios
    of `entry` and `hidden` to the stage's width; inners: ratios of `inner` to `hidden`; downs: the down-samplers of
    all stages but the first, which has a strided convolution.
    """

    first_depths: Units = (0, 1, 2, 3)
    depths: Units = (1, 2, 3)
    entries: Factors = (1.0, 0.5)
    hiddens: Factors = (1.0, 0.5)
    inners: Factors = (0.5, 0.25, 0.75, 1.0)
    downs: Annotated[tuple[DownKind, ...], MinLen(1), DISTINCT] = ("aconv", "adown", "conv")

    def options(self, stage: int) -> tuple[Sequence[object], ...]:
        first = stage == 0
        depths, downs = self.first_depths if first else self.depths, ("conv",) if first else self.downs
        return depths, self.entries, self.hiddens, self.inners, downs

    def block(self, stage: int, out: int, choice: tuple[int, float, float, float, DownKind]) -> Block:
        depth, entry, hidden, inner, down = choice
        wide = round_to(out * hidden, 8)
        return GELAN(out, round_to(out * entry, 8), wide, round_to(wide * inner, 4), depth, 2, down)


SPACES: dict[str, GELANSpace] = {
    space.name: space
    for space in (
        GELANSpace(
            name="gelan",
            step=8,
            steps=(8, 8, 8, 8),
            stem_channels=(8, 64),
            channels=((16, 256), (32, 512), (64, 512), (96, 640)),
            start_stem=16,
            start=(32, 64, 96, 128),
            spp="sppelan",
        ),
    )
}
