"""The MAE-NAS score in closed form (MAE-DET, arXiv 2111.13336): entropy of Gaussian feature maps, level by level.

A convolution with unit-variance weights multiplies the variance of its signal by its fan-in, so its log-std gains
ln(fan-in) / 2. The score of a backbone is

    sum over levels s of  w_s * ( ln C_s + sum of the gains of all units up to the end of level s )

Shortcuts, squeeze-excite, pyramids, BN, activations and map sizes do not enter. For CSP, GELAN and C3k2 stages, which
the paper does not treat, the units are the convolutions along the longest path: ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

from nas.blocks.operation import CONVOLUTIONS
from nas.errors import UserError
from nas.lowering import Operation, block_operations
from nas.lowering.network import stem_operations
from nas.scorers.base import Weights
from nas.spec import Backbone, Block, Spec, Stem, backbone_of

#: DAMO-YOLO's level weights, from the stem (level 0) to stride 32 (level 4).
LEVEL_WEIGHTS = (0.0, 0.0, 1.0, 1.0, 16.0)


def log_gain(operations: Iterable[Operation]) -> float:
    """Log-std that a signal gains through the stem and main convolutions of some operations."""
    fan_ins = [
        op.fan_in for op in operations if op.role in ("main", "stem") and op.kind in CONVOLUTIONS and not op.branch
    ]
    return 0.5 * math.fsum(map(math.log, fan_ins))


@lru_cache(maxsize=200_000)
def level_log_gain(block: Block, in_channels: int) -> float:
    """Gain of all units of a block: the only thing besides its width that a backbone's score takes from it."""
    return log_gain(block_operations(block, in_channels, 32, 32))


@lru_cache(maxsize=4096)
def stem_log_gain(stem: Stem) -> float:
    """Gain of the stem, which reads 3 channels, or 12 after Focus."""
    return log_gain(stem_operations(stem, (64, 64), "relu"))


def checked_weights(backbone: Backbone, weights: Sequence[float]) -> tuple[float, ...]:
    """The weights as floats; raises UserError unless there is one for each level of the backbone."""
    levels = backbone.levels[-1] + 1
    if len(weights) != levels:
        raise UserError(f"the backbone has {levels} levels (the stem is the first), got {len(weights)} level weights")
    return tuple(map(float, weights))


def cumulative_weights(level_weights: Sequence[float]) -> tuple[float, ...]:
    """Weight of a unit in each level: it counts in its own level and in all later ones."""
    return tuple(math.fsum(level_weights[level:]) for level in range(len(level_weights)))


def level_terms(backbone: Backbone) -> list[tuple[int, float]]:
    """Of each level: its width C_s, and the sum of all gains up to its end."""
    channels, gain = backbone.stem.out, stem_log_gain(backbone.stem)
    ends = {0: (channels, gain)}
    for block, level in zip(backbone.blocks, backbone.levels, strict=True):
        gain += level_log_gain(block, channels)
        channels = block.out
        ends[level] = (channels, gain)
    return list(ends.values())


def mae(spec: Spec, level_weights: Weights = LEVEL_WEIGHTS) -> float:
    """The MAE-NAS score of a backbone, or of a detector's backbone (the neck does not enter).

    level_weights: one per resolution, from the stem on. Raises UserError if their number differs from the levels.
    """
    backbone = backbone_of(spec)
    weights = checked_weights(backbone, level_weights)
    terms = level_terms(backbone)
    return math.fsum(w * (math.log(width) + gain) for w, (width, gain) in zip(weights, terms, strict=True))
