"""The DeepMAD score (arXiv 2303.02165): entropy times log-volume of each level, with a penalty for uneven depth.

Its companion, the effectiveness rho, is a budget: `nas.cost.count.effectiveness`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from nas.blocks.operation import main_convolutions
from nas.lowering import Operation, backbone_operations
from nas.options import Pixels
from nas.scorers.base import Weights
from nas.scorers.formula import Array, Formula, level_ends, weighted
from nas.spec import Spec, backbone_of, image_side

#: Exponents of width and kernel: 1 as published.
Exponent = Annotated[float, Ge(0), Le(10)]
LEVEL_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 8.0)


@dataclass(frozen=True)
class DeepMad(Formula):
    """sum over levels of w_s (ln C_s + 2 ln F_s) (gains up to the end of s), less `depth_penalty` exp(std of depths)."""

    level_weights: Weights = LEVEL_WEIGHTS
    alpha1: float = 1.0
    alpha2: float = 1.0
    depth_penalty: float = 0.0

    def amount(self, operations: Sequence[Operation], side: int) -> float:
        main = main_convolutions(operations)
        widths = np.log([op.in_channels // op.groups for op in main])
        return float(0.5 * (self.alpha1 * widths + 2 * self.alpha2 * np.log([op.kernel for op in main])).sum())

    def combine(
        self, gains: Array, channels: Array, sides: Array, depths: Array, metrics: Mapping[str, Array]
    ) -> Array:
        score = weighted((np.log(channels) + 2 * np.log(sides)) * gains, self.level_weights)
        return score - self.depth_penalty * np.exp(depths.std(axis=1) if depths.shape[1] else 0.0)


def deepmad(
    spec: Spec,
    level_weights: Weights = LEVEL_WEIGHTS,
    alpha1: Exponent = 1.0,
    alpha2: Exponent = 1.0,
    depth_penalty: Annotated[float, Ge(0), Le(1e6)] = 0.0,
    image_size: Pixels | None = None,
    squeeze_excite_flaw: bool = False,
) -> float:
    """sum over levels s of w_s * (ln C_s + 2 ln F_s) * (gains up to the end of s) - depth_penalty * exp(std of depths).

    F_s: map side at the end of level s for `image_size` pixels (a detector's own size, else 640).
    alpha1, alpha2: exponents of width and kernel in the gains; depth_penalty: 10 in the published searches.
    squeeze_excite_flaw: repeat the official program, which takes F = 1 behind any squeeze-excite block.
    """
    formula = DeepMad(level_weights, alpha1, alpha2, depth_penalty)
    if not squeeze_excite_flaw:
        return formula.score(spec, image_size)
    backbone, side = backbone_of(spec), image_side(spec, image_size)
    groups, levels = backbone_operations(backbone, side), (0, *backbone.levels)
    gains, channels, sides = level_ends(backbone, formula, side)
    squeezed = (level for level, group in zip(levels, groups, strict=True) if any(op.role == "se" for op in group))
    sides[next(squeezed, len(sides)) :] = 1
    return formula.score_of_levels(backbone, gains, channels, sides)
