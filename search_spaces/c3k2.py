"""C3k2 with C2PSA, the hand-drawn backbones of YOLO11, and a space of backbones around them.

A stage is a strided 3x3 to `entry` channels, then C3k2 with `depth` units of width `hidden`; SPPF and an attention
block close the backbone. The space frees every width, the ratios between them, the depths and the kind of unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from nas.options import DISTINCT
from nas.spec import C2PSA, Backbone, Block, C3k2, Stem
from search_spaces.base import DepthChoices, Factors, round_to
from search_spaces.stages import StageSpace


def _backbone(stem: int, widths: tuple[int, int, int, int], units: int, c3k: bool) -> Backbone:
    """YOLO11's proportions: entries of half the width in the first two stages, hidden of a quarter; then 1 and 1/2."""
    first, second, third, fourth = widths
    blocks = (
        C3k2(first, first // 2, first // 4, units, 2, c3k),
        C3k2(second, second // 2, second // 4, units, 2, c3k),
        C3k2(third, third, third // 2, units, 2, True),
        C3k2(fourth, fourth, fourth // 2, units, 2, True),
        C2PSA(fourth, units),
    )
    return Backbone(Stem("conv", stem), blocks, (1, 2, 4), "sppf", "silu")


#: As published, with their SPPF and C2PSA.
BACKBONES: dict[str, Backbone] = {
    "yolo11-n-backbone": _backbone(16, (64, 128, 128, 256), 1, False),
    "yolo11-s-backbone": _backbone(32, (128, 256, 256, 512), 1, False),
    "yolo11-m-backbone": _backbone(64, (256, 512, 512, 512), 1, True),
    "yolo11-l-backbone": _backbone(64, (256, 512, 512, 512), 2, True),
    "yolo11-x-backbone": _backbone(96, (384, 768, 768, 768), 2, True),
}


@dataclass(frozen=True, kw_only=True)
class C3k2Space(StageSpace[tuple[int, bool, float, float]]):
    """Backbones of C3k2 stages under one attention block.

    depths: units of a stage; kinds: halving bottlenecks (false) or C3k units (true); entries and hiddens: ratios of
    `entry` and `hidden` to the stage's width; attention: units of the closing C2PSA. The last stage's widths are
    multiples of 128, so that its attention heads are whole.
    """

    depths: DepthChoices = (1, 2, 3)
    kinds: Annotated[tuple[bool, ...], MinLen(1), DISTINCT] = (False, True)
    entries: Factors = (0.5, 1.0)
    hiddens: Factors = (0.25, 0.5)
    attention: DepthChoices = (1, 2)

    def options(self, stage: int) -> tuple[Sequence[object], ...]:
        return self.depths, self.kinds, self.entries, self.hiddens

    def block(self, stage: int, out: int, choice: tuple[int, bool, float, float]) -> Block:
        depth, c3k, entry, hidden = choice
        return C3k2(out, round_to(out * entry, 8), round_to(out * hidden, 4), depth, 2, c3k)

    def closing(self, out: int, depth: int) -> tuple[Block, ...]:
        return (C2PSA(out, depth),)

    def closing_depths(self) -> tuple[int, ...]:
        return self.attention


SPACES: dict[str, C3k2Space] = {
    space.name: space
    for space in (
        C3k2Space(
            name="c3k2",
            step=8,
            steps=(16, 16, 16, 128),
            stem_channels=(8, 96),
            channels=((32, 384), (64, 768), (64, 768), (128, 768)),
            start_stem=16,
            start=(64, 128, 128, 256),
            spp="sppf",
        ),
    )
}
