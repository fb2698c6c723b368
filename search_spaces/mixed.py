"""Stages of every kind in one space: TinyNAS units, CSP, GELAN and C3k2 side by side, another one at each resolution.

What hand-drawn networks repeat from stem to head, this space chooses stage by stage: the kind of block, its width, inner
width, depth and kernel. Down-samplers and ratios that a kind has for itself are those of its smallest published network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import MinLen

from nas.options import DISTINCT
from nas.spec import CSP, GELAN, Block, C3k2, Residual
from search_spaces.base import DepthChoices, Factors, Kernels, round_to
from search_spaces.stages import StageSpace

StageKind = Literal["k1kx", "kxkx", "csp", "gelan", "c3k2"]


@dataclass(frozen=True, kw_only=True)
class MixedSpace(StageSpace[tuple[StageKind, int, float, int]]):
    """Backbones whose stages are each of a kind of its own.

    kinds: k1kx and kxkx (residual units of TinyNAS), csp (DAMO-YOLO's, of k1kx units), gelan (YOLOv9's, behind an average
    pooling and a 3x3; in the first stage behind the 3x3 alone), c3k2 (YOLO11's, of halving bottlenecks); depths: units of
    a stage; shares: of the inner width in the stage's; kernels: of the residual units.
    """

    kinds: Annotated[tuple[StageKind, ...], MinLen(1), DISTINCT] = ("k1kx", "kxkx", "csp", "gelan", "c3k2")
    depths: DepthChoices = (1, 2, 3, 4)
    shares: Factors = (0.5, 0.75, 1.0)
    kernels: Kernels = (3, 5)

    def options(self, stage: int) -> tuple[Sequence[object], ...]:
        return self.kinds, self.depths, self.shares, self.kernels

    def block(self, stage: int, out: int, choice: tuple[StageKind, int, float, int]) -> Block:
        kind, depth, share, kernel = choice
        if kind == "gelan":
            hidden = round_to(out * share, 8)
            return GELAN(out, out, hidden, hidden // 2, depth, 2, "aconv" if stage else "conv")
        if kind == "c3k2":
            return C3k2(out, out, round_to(out * share / 2, 4), depth)
        if kind == "csp":
            return CSP(out, round_to(out * share / 2, 8), depth, 2, kernel, "k1kx")
        return Residual(kind, out, round_to(out * share, 8), depth, 2, kernel)


SPACES: dict[str, MixedSpace] = {
    space.name: space
    for space in (
        MixedSpace(
            name="mixed",
            step=8,
            steps=(16, 16, 16, 32),
            stem_channels=(16, 64),
            channels=((16, 256), (32, 384), (64, 512), (96, 640)),
            start_stem=16,
            start=(32, 64, 96, 128),
            spp="sppf",
        ),
    )
}
