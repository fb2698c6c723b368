"""Entropy of what a detector's head sees: the MAE score carried on through the neck (ours).

The paper scores backbone levels only. Here the same Gaussian signal runs on through the RepGFPN: variances of
concatenated maps mix as a convolution mixes them, ln(k^2 sum_i c_i var_i), and the score sums over the neck's outputs.
Sums with an input (residual blocks of the neck) are left out, as shortcuts are in the backbone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nas.errors import UserError
from nas.lowering.neck import FusionNode, branch_widths, hidden_width, neck_graph
from nas.scorers.base import Weights
from nas.scorers.entropy import level_log_gain, stem_log_gain
from nas.spec import Backbone, DetectorSpec, NeckSpec, Spec

#: Weights of the neck's outputs N3, N4, N5: those of the backbone levels at the same strides.
LEVEL_WEIGHTS = (1.0, 1.0, 16.0)

#: One piece of a concatenation: channels, and log-variance of its values.
Piece = tuple[int, float]


def mae_neck(spec: Spec, level_weights: Weights = LEVEL_WEIGHTS) -> float:
    """sum over the neck's outputs of w * (ln width + log-std of the signal there).

    level_weights: of strides 8, 16, 32. Raises UserError for a bare backbone or another number of weights.
    """
    if not isinstance(spec, DetectorSpec):
        raise UserError("mae_neck scores a whole detector; a bare backbone has the score mae")
    if len(level_weights) != 3:
        raise UserError(f"mae_neck needs three level weights (strides 8, 16, 32), got {len(level_weights)}")
    logs = neck_log_variances(spec.backbone, spec.neck)
    return math.fsum(w * (math.log(c) + 0.5 * v) for w, c, v in zip(level_weights, spec.neck.out, logs, strict=True))


def neck_log_variances(backbone: Backbone, neck: NeckSpec) -> tuple[float, float, float]:
    """Log-variance of a unit Gaussian image at N3, N4, N5, without BN, activations and residual sums."""
    c3, c4, c5 = backbone.out_channels
    logs: dict[str, float] = dict(zip(("C3", "C4", "C5"), _backbone_log_variances(backbone), strict=True))
    for node in neck_graph(neck, (c3, c4, c5)):
        pieces = [
            (source.channels, logs[source.origin] + (_down_gain(source.channels) if source.move == "down" else 0.0))
            for source in node.sources
        ]
        logs[node.name] = _fused(neck, node, pieces)
    return logs["N3"], logs["N4"], logs["N5"]


def _backbone_log_variances(backbone: Backbone) -> list[float]:
    gain, channels, gains = stem_log_gain(backbone.stem), backbone.stem.out, []
    for block in backbone.blocks:
        gain += level_log_gain(block, channels)
        channels = block.out
        gains.append(gain)
    return [2 * gains[index] for index in backbone.out_blocks]


def _mixed(pieces: Sequence[Piece], kernel: int = 1) -> float:
    """Log-variance behind a convolution with unit-variance weights that reads the concatenated pieces."""
    highest = max(log for _, log in pieces)
    total = math.fsum(channels * math.exp(log - highest) for channels, log in pieces)
    return highest + math.log(kernel * kernel * total)


def _down_gain(channels: int) -> float:
    """Log-variance that a stride-2 step adds: a 3x3 convolution; depthwise 3x3 and 1x1 come to the same."""
    return math.log(9 * channels)


def _fused(neck: NeckSpec, node: FusionNode, pieces: list[Piece]) -> float:
    """Log-variance at the output of one fusion stage (`nas.lowering.neck.fusion_operations` lists its convolutions)."""
    if neck.fusion == "conv":
        return _mixed(pieces, 3)
    kept, width = branch_widths(node.out_channels)
    hidden = hidden_width(neck, width, node.level)
    entry = log = _mixed(pieces)
    block = math.log(width * 25 * hidden) if neck.depthwise else math.log(9 * width * 9 * hidden)
    outputs = []
    for _ in range(neck.depth):
        log += block
        outputs.append((width, log))
    if neck.fusion != "elan" or not outputs:
        outputs = [(width, log)]
    return _mixed([(kept, entry), *outputs])
