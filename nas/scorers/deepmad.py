"""The DeepMAD score (arXiv 2303.02165): entropy times log-volume of each level, with a penalty for uneven depth.

Its companion, the effectiveness rho, is a budget: `nas.cost.count.effectiveness`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Annotated

from annotated_types import Ge, Le

from nas.blocks.operation import CONVOLUTIONS
from nas.blocks.primitives import halved
from nas.lowering import Operation, backbone_operations
from nas.options import Pixels
from nas.scorers.base import Weights
from nas.scorers.entropy import checked_weights
from nas.spec import Backbone, Residual, Spec, backbone_of, image_side

#: Exponents of width and kernel: 1 as published.
Exponent = Annotated[float, Ge(0), Le(10)]
LEVEL_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 8.0)

#: Leading depths that the penalty leaves out, by the kind of the blocks.
_UNCOUNTED = {"k1kxk1": 2, "kxkx": 1}


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
    backbone = backbone_of(spec)
    weights = checked_weights(backbone, level_weights)
    side = image_side(spec, image_size)
    groups = backbone_operations(backbone, side)
    size, squeezed = halved((side, side), backbone.stem.stride), False
    gain = _gain(groups[0], alpha1, alpha2)
    ends = {0: (backbone.stem.out, size[0], gain)}
    for block, level, group in zip(backbone.blocks, backbone.levels, groups[1:], strict=True):
        gain += _gain(group, alpha1, alpha2)
        size = halved(size, block.stride)
        squeezed |= any(op.role == "se" for op in group)
        ends[level] = (block.out, 1 if squeezed and squeeze_excite_flaw else size[0], gain)
    terms = zip(weights, ends.values(), strict=True)
    score = math.fsum(w * (math.log(width) + 2 * math.log(cells)) * gain for w, (width, cells, gain) in terms)
    return score - (depth_penalty * depth_unevenness(backbone) if depth_penalty else 0.0)


def depth_unevenness(backbone: Backbone) -> float:
    """exp of the standard deviation of the depths, without the first ones that the official penalty leaves out."""
    depths = [block.depth for block in backbone.blocks if isinstance(block, Residual)]
    kinds = {block.kind for block in backbone.blocks if isinstance(block, Residual)}
    depths = depths[max((_UNCOUNTED.get(kind, 0) for kind in kinds), default=0) :]
    return math.exp(statistics.pstdev(depths)) if depths else 1.0


def _gain(operations: Iterable[Operation], alpha1: float, alpha2: float) -> float:
    return 0.5 * math.fsum(
        alpha1 * math.log(op.in_channels // op.groups) + 2 * alpha2 * math.log(op.kernel)
        for op in operations
        if op.role in ("stem", "main") and op.kind in CONVOLUTIONS and not op.branch
    )
