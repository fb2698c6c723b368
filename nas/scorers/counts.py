"""Scores of what a network has to do: its sizes and chance, the baselines that any score must beat, and its work in balance.

`level_balance` (ours) takes each block's work in logarithms, so that no part can buy what another lacks.

If the loss falls as a power of the work of every block in the chain, sum_b M_b^(-a), its maximiser to first order in a
is the sum of ln M_b, with M_b the multiply-accumulates of block b: proportional fairness. A map of level s rests on
all blocks before it, holds C_s numbers a cell, and the three maps of a detector count alike, so

    score = sum over s of w_s * (ln C_s + sum over blocks b up to the end of s of ln M_b),      w = (0, 0, 1, 1, 1),

in which stem, stride 4 and stride 8 serve three maps, stride 16 two and stride 32 one. Resolution enters through M_b,
and depth and width alike. Under a budget in which every MAC costs the same, the best split of the work between stem,
stride 4, stride 8, the two blocks of stride 16 and stride 32 is near 3 : 3 : 3 : 2 : 2 : 1, whatever the budget; where
a table charges unequal prices, milliseconds take the place of MACs. It is a sum over blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nas.blocks.operation import main_convolutions
from nas.cost.count import count_spec
from nas.lowering import Operation
from nas.options import Pixels, Seed
from nas.scorers.base import Weights
from nas.scorers.formula import DETECTOR_LEVELS, Array, Formula, LevelSum, Linear
from nas.spec import Spec, digest


@dataclass(frozen=True)
class Count(Formula):
    """A metric of the network, times a factor."""

    monotone: ClassVar[bool] = True

    metric: str
    factor: float = 1.0

    def combine(
        self, gains: Array, channels: Array, sides: Array, depths: Array, metrics: Mapping[str, Array]
    ) -> Array:
        return metrics[self.metric] * self.factor

    def linear(self) -> Linear:
        return Linear(metric=self.metric, factor=self.factor)

    def score(self, spec: Spec, image_size: int | None = None) -> float:
        return float(count_spec(spec, image_size=image_size).metrics()[self.metric] * self.factor)


PARAMS, MACS, LAYERS = Count("params_m"), Count("flops_g", 0.5), Count("layers")


def params(spec: Spec) -> float:
    """Millions of parameters, branches merged."""
    return PARAMS.score(spec)


def macs(spec: Spec, image_size: Pixels | None = None) -> float:
    """Billions of multiply-accumulates (a backbone at 640 pixels unless told)."""
    return MACS.score(spec, image_size)


def layers(spec: Spec) -> float:
    """Convolution layers of the backbone by the TinyNAS count."""
    return LAYERS.score(spec)


def chance(spec: Spec, seed: Seed = 0) -> float:
    """A number in [0, 1) that depends on nothing but the digest and the seed."""
    # SplitMix64, so that seeds give independent numbers
    state = (int(digest(spec), 16) + seed * 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return (state ^ (state >> 31)) / 2**64


@dataclass(frozen=True)
class LevelBalance(LevelSum):
    """sum over levels of w_s (ln C_s + sum of ln MACs, in millions, of stem and blocks up to the end of s)."""

    monotone: ClassVar[bool] = True

    def amount(self, operations: Sequence[Operation], side: int) -> float:
        return math.fsum(op.macs for op in main_convolutions(operations)) / 1e6

    def gains(self, amounts: Array) -> Array:
        return np.log(amounts)


def level_balance(spec: Spec, level_weights: Weights = DETECTOR_LEVELS, image_size: Pixels | None = None) -> float:
    """Log-MACs of the blocks behind each map; a bare backbone at 640 pixels unless told (size shifts all scores alike).

    level_weights: one per resolution, from the stem on. Raises UserError if their number differs from the levels.
    """
    return LevelBalance(level_weights).score(spec, image_size)
