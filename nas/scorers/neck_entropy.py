"""The MAE-NAS score seen through a neck (ours): entropy of the maps that a detector's head reads.

The signal of `nas.scorers.entropy` runs on through the RepGFPN, where the variances of concatenated maps mix as a convolution
mixes them, ln(k^2 sum_i c_i var_i), and the score sums over the neck's outputs. Sums with an input (residual blocks of the
neck) are left out, as shortcuts are in the backbone. A sum of exponentials has a convex logarithm, so that the score is a
convex function of the gains up to C3, C4 and C5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nas.errors import UserError
from nas.lowering import Operation
from nas.lowering.repgfpn import branch_widths, hidden_width, neck_graph
from nas.scorers.base import Weights
from nas.scorers.entropy import LEVEL_WEIGHTS, log_gain
from nas.scorers.formula import Array, Formula, level_ends, weighted
from nas.spec import DetectorSpec, NeckSpec, Spec, image_side

Widths = NDArray[np.int64]
#: One piece of a concatenation in n networks: channels (n,), and log-variance of its values (n,).
Piece = tuple[Widths, Array]


@dataclass(frozen=True)
class NeckEntropy(Formula):
    """sum over the neck's outputs of w * (ln width + log-std of the signal there).

    neck: of the detectors that are scored; its output widths are `out`, or where that is None those of C3, C4, C5.
    """

    monotone: ClassVar[bool] = True

    level_weights: Weights = LEVEL_WEIGHTS[2:]
    neck: NeckSpec | None = None
    out: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.level_weights) != 3:
            raise UserError(
                f"mae_neck needs three level weights (strides 8, 16, 32), got {len(self.level_weights)} level weights"
            )

    def amount(self, operations: Sequence[Operation], side: int) -> float:
        return log_gain(operations)

    @property
    def through_neck(self) -> bool:
        return min(self.level_weights) >= 0

    def behind(self, neck: NeckSpec | None, out: tuple[int, ...] | None) -> NeckEntropy:
        if neck is None:
            raise UserError("mae_neck scores a whole detector; a bare backbone has the score mae")
        return replace(self, neck=neck, out=out)

    def combine(
        self, gains: Array, channels: Array, sides: Array, depths: Array, metrics: Mapping[str, Array]
    ) -> Array:
        assert self.neck is not None
        widths = channels[:, -3:].astype(np.int64)
        outs = widths if self.out is None else np.tile(np.array(self.out), (len(widths), 1))
        logs = neck_log_variances(self.neck, widths, outs, 2 * gains[:, -3:])
        return weighted(np.log(outs) + 0.5 * logs, self.level_weights)

    def score(self, spec: Spec, image_size: int | None = None) -> float:
        if not isinstance(spec, DetectorSpec):
            return self.behind(None, None).score(spec)
        ends = level_ends(spec.backbone, self, image_side(spec, image_size))
        return self.behind(spec.neck, spec.neck.out).score_of_levels(spec.backbone, *ends)


def mae_neck(spec: Spec, level_weights: Weights = LEVEL_WEIGHTS[2:]) -> float:
    """sum over the neck's outputs of w * (ln width + log-std of the signal there).

    level_weights: of strides 8, 16, 32, as the backbone's at the same strides. Raises UserError for a bare backbone or
    another number of weights.
    """
    return NeckEntropy(level_weights).score(spec)


def neck_log_variances(neck: NeckSpec, channels: Widths, outs: Widths, logs: Array) -> Array:
    """Log-variances (n, 3) at N3, N4, N5 of n detectors, without BN, activations and residual sums.

    channels, outs: widths of C3, C4, C5 and of N3, N4, N5 (n, 3), in place of those of the neck; logs: log-variances of
    C3, C4, C5 (n, 3).
    """
    # The graph on stand-ins for the six widths tells which of them every node reads.
    widths = dict(enumerate((*channels.T, *outs.T), 1))
    maps: dict[str, Array] = dict(zip(("C3", "C4", "C5"), logs.T, strict=True))
    for node in neck_graph(replace(neck, out=(4, 5, 6)), (1, 2, 3)):
        pieces = []
        for source in node.sources:
            width, log = widths[source.channels], maps[source.origin]
            pieces.append((width, log + _down_gain(width) if source.move == "down" else log))
        maps[node.name] = _fused(neck, widths[node.out_channels], node.level, pieces)
    return np.stack([maps["N3"], maps["N4"], maps["N5"]], axis=1)


def _mixed(pieces: Sequence[Piece], kernel: int = 1) -> Array:
    """Log-variance behind a convolution with unit-variance weights that reads the concatenated pieces."""
    highest = np.max([log for _, log in pieces], axis=0)
    total = sum(channels * np.exp(log - highest) for channels, log in pieces)
    result: Array = highest + np.log(kernel * kernel * total)
    return result


def _down_gain(channels: Widths) -> Array:
    """Log-variance that a stride-2 step adds: a 3x3 convolution; depthwise 3x3 and 1x1 come to the same."""
    result: Array = np.log(9 * channels)
    return result


def stage_widths(neck: NeckSpec, out: Widths, level: int) -> Widths:
    """Widths (3, n) of the kept and of the computed branch of a fusion stage, and inside its blocks."""
    several, places = np.unique(out, return_inverse=True)
    split = [branch_widths(one) for one in several.tolist()]
    rows = [(kept, width, hidden_width(neck, width, level)) for kept, width in split]
    widths: Widths = np.array(rows, dtype=np.int64).reshape(len(rows), 3)[places].T
    return widths


def block_gain(neck: NeckSpec, width: Widths, hidden: Widths) -> Array:
    """Log-variance that a block of a fusion stage adds."""
    gain: Array = np.log(width * 25 * hidden) if neck.depthwise else np.log(9 * width * 9 * hidden)
    return gain


def _fused(neck: NeckSpec, out: Widths, level: int, pieces: list[Piece]) -> Array:
    """Log-variance at the output of one fusion stage (`nas.lowering.repgfpn.fusion_operations` lists its convolutions)."""
    if neck.fusion == "conv":
        return _mixed(pieces, 3)
    kept, width, hidden = stage_widths(neck, out, level)
    entry = log = _mixed(pieces)
    block = block_gain(neck, width, hidden)
    outputs = []
    for _ in range(neck.depth):
        log = log + block
        outputs.append((width, log))
    if neck.fusion != "elan" or not outputs:
        outputs = [(width, log)]
    return _mixed([(kept, entry), *outputs])
