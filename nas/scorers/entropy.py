"""The MAE-NAS score in closed form (MAE-DET, arXiv 2111.13336): entropy of Gaussian feature maps, level by level.

A convolution with unit-variance weights multiplies the variance of its signal by its fan-in, so its log-std gains
ln(fan-in) / 2. The score of a backbone is

    sum over levels s of  w_s * ( ln C_s + sum of the gains of all units up to the end of level s )

Shortcuts, squeeze-excite, pyramids, BN, activations and map sizes do not enter. For CSP, GELAN and C3k2 stages, which
the paper does not treat, the units are the convolutions along the longest path: ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from nas.blocks.operation import main_convolutions
from nas.lowering import Operation
from nas.scorers.base import Weights
from nas.scorers.formula import LevelSum
from nas.spec import Spec

#: DAMO-YOLO's level weights, from the stem (level 0) to stride 32 (level 4).
LEVEL_WEIGHTS = (0.0, 0.0, 1.0, 1.0, 16.0)


def log_gain(operations: Sequence[Operation]) -> float:
    """Log-std that a signal gains through the stem and main convolutions of some operations."""
    return 0.5 * math.fsum(math.log(op.fan_in) for op in main_convolutions(operations))


@dataclass(frozen=True)
class Entropy(LevelSum):
    """sum over levels of w_s (ln C_s + gains up to the end of s)."""

    monotone: ClassVar[bool] = True

    level_weights: Weights = LEVEL_WEIGHTS

    def amount(self, operations: Sequence[Operation], side: int) -> float:
        return log_gain(operations)


def mae(spec: Spec, level_weights: Weights = LEVEL_WEIGHTS) -> float:
    """The MAE-NAS score of a backbone, or of a detector's backbone (the neck does not enter).

    level_weights: one per resolution, from the stem on. Raises UserError if their number differs from the levels.
    """
    return Entropy(level_weights).score(spec)
