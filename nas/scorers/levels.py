"""Scores built from one gain a part (stem or block) of the backbone, summed up to each level's end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nas.blocks.operation import CONVOLUTIONS
from nas.errors import UserError
from nas.lowering import Operation, backbone_operations
from nas.spec import Spec, backbone_of, image_side

Array = NDArray[np.float64]

#: The three maps that a detector reads (strides 8, 16, 32), on a par; stem and stride 4 count through them alone.
DETECTOR_LEVELS = (0.0, 0.0, 1.0, 1.0, 1.0)


class LevelFormula(Protocol):
    """A gain per stem or block, and what becomes of the sums over arrays of candidates.

    The signature is that of the searchers' closed forms; those add that a gain is linear in the depth of a block.
    """

    def gain(self, operations: Sequence[Operation]) -> float:
        """Gain of one stem or block."""

    def combine(self, gains: Array, channels: Array, sides: Array, depths: Array, metrics: Array) -> Array:
        """Scores (n,) from gains up to each level's end (n, levels) and the widths there (n, levels)."""


def main_convolutions(operations: Sequence[Operation]) -> list[Operation]:
    """Stem and main-path convolutions of the deployed form."""
    return [op for op in operations if op.role in ("stem", "main") and op.kind in CONVOLUTIONS and not op.branch]


def score_by_levels(formula: LevelFormula, spec: Spec, image_size: int | None = None) -> float:
    """The score of one backbone, or of a detector's backbone at the detector's image size (a bare one: 640 pixels)."""
    backbone = backbone_of(spec)
    side = image_side(spec, image_size)
    groups = backbone_operations(backbone, side)
    widths = [backbone.stem.out, *(block.out for block in backbone.blocks)]
    levels = (0, *backbone.levels)
    running, ends = 0.0, {}
    for group, width, level in zip(groups, widths, levels, strict=True):
        running += formula.gain(group)
        ends[level] = (running, width)
    gains, channels = (np.array([[end[i] for end in ends.values()]], dtype=np.float64) for i in (0, 1))
    nothing = np.zeros((1, 0))
    return float(formula.combine(gains, channels, nothing, nothing, nothing)[0])


def weighted(values: Array, weights: Sequence[float]) -> Array:
    """Sum over levels; raises UserError unless there is a weight for each."""
    if values.shape[1] != len(weights):
        raise UserError(
            f"the backbone has {values.shape[1]} levels (the stem is the first), got {len(weights)} level weights"
        )
    return values @ np.asarray(weights, dtype=np.float64)
