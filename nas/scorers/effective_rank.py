"""Effective rank of the features of an untrained network (ours): width against depth, without any credit for depth.

The spectrum of a product of independent Gaussian matrices of widths n_1 .. n_L has the participation ratio

    D = 1 / (1/n_1 + ... + 1/n_L),

so every further layer, and above all every narrow one, makes the features of random inputs more alike; the same sum
governs the fluctuation of activations and gradients (Hanin and Rolnick, NeurIPS 2018), and D over the number of layers
is an additive cousin of DeepMAD's 1 / rho. A residual branch counts by the share of the variance that passes it
(`residual_entropy`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.lowering import Operation
from nas.scorers.base import Weights
from nas.scorers.levels import DETECTOR_LEVELS, Array, score_by_levels, weighted
from nas.scorers.residual_entropy import variance_shares
from nas.spec import Spec


@dataclass(frozen=True)
class EffectiveRank:
    """sum over levels of w_s ln D_s; the gain of a part is its sum of share / width."""

    level_weights: tuple[float, ...] = DETECTOR_LEVELS

    def gain(self, operations: Sequence[Operation]) -> float:
        shares = variance_shares(operations)
        return math.fsum(share / op.out_channels for share, unit in shares for op in unit)

    def combine(self, gains: Array, channels: Array, sides: Array, depths: Array, metrics: Array) -> Array:
        return weighted(-np.log(gains), self.level_weights)


def effective_rank(spec: Spec, level_weights: Weights = DETECTOR_LEVELS) -> float:
    """Sum over levels of the log of the effective number of feature dimensions.

    level_weights: one per resolution, from the stem on. Raises UserError if their number differs from the levels.
    """
    return score_by_levels(EffectiveRank(tuple(map(float, level_weights))), spec)
