"""Scores that count a residual branch by the share of the variance that passes it (ours).

In a network with BN, the i-th residual unit adds a branch of variance one to a sum of i such terms, so only 1 / (1 + i)
of the variance behind it has passed through its convolutions. A unit without shortcut (DAMO-YOLO at stride 2) resets i
to 0 and counts whole; a projected shortcut carries BN and resets the sum to one term, as does the beginning of a block.
The same 1 / (1 + i) appears as the bias of BN networks towards the identity (De and Smith, NeurIPS 2020) and as the
short paths of Veit et al. (NeurIPS 2016).

Entropy: MAE multiplies the gains of all units as if they stood in one chain. The expected log-gain along a path drawn by
variance is

    G_i = G_(i-1) + h_i / (1 + i),      h = half the sum of ln fan-in of the unit's convolutions.

Twice the depth adds ln 2 / ln(depth) of a block's gain, where MAE adds all of it again, which is what makes towers under
a latency budget.

Effective rank: width against depth, without any credit for depth. The spectrum of a product of independent Gaussian
matrices of widths n_1 .. n_L has the participation ratio

    D = 1 / (1/n_1 + ... + 1/n_L),

so every further layer, and above all every narrow one, makes the features of random inputs more alike; the same sum
governs the fluctuation of activations and gradients (Hanin and Rolnick, NeurIPS 2018), and D over the number of layers
is an additive cousin of DeepMAD's 1 / rho.

The levels that a detector reads weigh alike: each neck output is fused from all three.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

import numpy as np

from nas.blocks.operation import main_convolutions
from nas.lowering import Operation
from nas.scorers.base import Weights
from nas.scorers.formula import DETECTOR_LEVELS, Array, Formula, LevelSum, weighted
from nas.spec import Spec


def variance_shares(operations: Sequence[Operation]) -> list[tuple[float, list[Operation]]]:
    """(share of the variance that passes its branch, convolutions) of each unit of a stem or block, in order."""
    projected = {op.unit for op in operations if op.role == "skip" and op.weights}
    shares: list[tuple[float, list[Operation]]] = []
    terms = 0
    for unit, group in groupby(main_convolutions(operations), key=lambda op: op.unit):
        convolutions = list(group)
        if not any(op.fused_add for op in convolutions):
            terms = 0
        else:
            terms = 1 if unit in projected else terms + 1
        shares.append((1 / (1 + terms), convolutions))
    return shares


def shares_behind(depth: int, shortcut: bool) -> float:
    """The shares of the later units of a block together, in those of its second unit."""
    terms = 1 + shortcut  # of the sum behind the first unit
    return math.fsum((terms + 1) / (terms + number) for number in range(1, depth))


@dataclass(frozen=True)
class ResidualEntropy(LevelSum):
    """sum over levels of w_s (ln C_s + attenuated gains up to the end of s)."""

    monotone: ClassVar[bool] = True

    def amount(self, operations: Sequence[Operation], side: int) -> float:
        shares = variance_shares(operations)
        return 0.5 * math.fsum(share * math.log(op.fan_in) for share, unit in shares for op in unit)

    def repeats(self, depth: int, shortcut: bool) -> float:
        return shares_behind(depth, shortcut)


@dataclass(frozen=True)
class EffectiveRank(Formula):
    """sum over levels of w_s ln D_s; the gain of a part is its sum of share / width."""

    monotone: ClassVar[bool] = True

    level_weights: Weights = DETECTOR_LEVELS

    def amount(self, operations: Sequence[Operation], side: int) -> float:
        shares = variance_shares(operations)
        return math.fsum(share / op.out_channels for share, unit in shares for op in unit)

    def repeats(self, depth: int, shortcut: bool) -> float:
        return shares_behind(depth, shortcut)

    def combine(
        self, gains: Array, channels: Array, sides: Array, depths: Array, metrics: Mapping[str, Array]
    ) -> Array:
        return weighted(-np.log(gains), self.level_weights)

    def logs(self) -> tuple[float, ...] | None:
        weights = tuple(float(weight) for weight in self.level_weights)
        return weights if min(weights) >= 0 < max(weights) else None


def mae_residual(spec: Spec, level_weights: Weights = DETECTOR_LEVELS) -> float:
    """Residual-aware entropy of a backbone, or of a detector's backbone.

    level_weights: one per resolution, from the stem on. Raises UserError if their number differs from the levels.
    """
    return ResidualEntropy(level_weights).score(spec)


def effective_rank(spec: Spec, level_weights: Weights = DETECTOR_LEVELS) -> float:
    """Sum over levels of the log of the effective number of feature dimensions.

    level_weights: one per resolution, from the stem on. Raises UserError if their number differs from the levels.
    """
    return EffectiveRank(level_weights).score(spec)
