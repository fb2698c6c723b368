"""Balanced computation (ours): each resolution's work in logarithms, so that no level can buy what another lacks.

If the loss at a level falls as a power of the work behind it, sum_t M_t^(-a), its first-order maximiser for small a is
the sum of ln M_t, with M_t the multiply-accumulates at resolution t: proportional fairness. A map of level s rests on
the work at every finer resolution, and the three maps of a detector count alike, so

    score = sum over s of w_s * sum over t <= s of ln M_t,      w = (0, 0, 1, 1, 1),

in which stem, stride 4 and stride 8 serve three maps, stride 16 two and stride 32 one. Resolution enters through M_t.
Under a budget that every MAC costs alike, the best split of the work is in just these proportions, 3 : 3 : 3 : 2 : 1,
whatever the budget; where a table charges unequal prices, milliseconds take the place of MACs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.lowering import Operation
from nas.scorers.levels import DETECTOR_LEVELS, Array, main_convolutions, score_by_levels, weighted
from nas.spec import Spec


@dataclass(frozen=True)
class LevelBalance:
    """Weighted logarithms of each level's own MACs in millions; the gain of a part is its MACs."""

    level_weights: tuple[float, ...] = DETECTOR_LEVELS

    def gain(self, operations: Sequence[Operation]) -> float:
        return math.fsum(op.macs for op in main_convolutions(operations)) / 1e6

    def combine(self, gains: Array, channels: Array, sides: Array, depths: Array, metrics: Array) -> Array:
        own = np.diff(gains, axis=1, prepend=0.0)
        return weighted(np.log(own).cumsum(axis=1), self.level_weights)


def level_balance(spec: Spec, level_weights: Sequence[float] = DETECTOR_LEVELS, image_size: int | None = None) -> float:
    """Cumulative log-MACs of the levels; a bare backbone at 640 pixels unless told (size shifts all scores alike).

    level_weights: one per resolution, from the stem on. Raises UserError if their number differs from the levels.
    """
    return score_by_levels(LevelBalance(tuple(map(float, level_weights))), spec, image_size)
