"""Parameters, multiply-accumulates, activations, layers and effectiveness, all read off the list of operations."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from nas.blocks.operation import CONVOLUTIONS, main_convolutions
from nas.lowering import Form, Operation, backbone_operations, operations
from nas.spec import Backbone, Spec, backbone_of, image_side


@dataclass(frozen=True, slots=True)
class Counts:
    """What a network costs on paper, at batch 1.

    params: learnable numbers of the counted form; macs: multiply-accumulates; activations: sum of convolution outputs;
    layers and rho: of the backbone alone, by the TinyNAS count (0 and 0.0 where there is no backbone spec).
    """

    params: int
    macs: int
    activations: int
    layers: int = 0
    rho: float = 0.0

    @property
    def flops(self) -> int:
        """Floating-point operations: two per multiply-accumulate."""
        return 2 * self.macs

    def metrics(self) -> dict[str, float]:
        """The counts under their budget names and units."""
        return {
            "flops_g": self.flops / 1e9,
            "params_m": self.params / 1e6,
            "activations_m": self.activations / 1e6,
            "layers": self.layers,
            "rho": self.rho,
        }

    def as_dict(self) -> dict[str, float]:
        return asdict(self) | {"flops": self.flops}


def count_operations(operations: Iterable[Operation], layers: int = 0, rho: float = 0.0) -> Counts:
    """Totals of a list of operations."""
    params = macs = activations = 0
    for op in operations:
        params += op.params
        macs += op.macs
        if op.kind in CONVOLUTIONS:
            activations += op.writes
    return Counts(params, macs, activations, layers, rho)


def effectiveness(backbone: Backbone, image_size: int) -> float:
    """DeepMAD's rho: depth divided by the geometric mean fan-in, the largest over the levels (arXiv 2303.02165, eq. 5)."""
    groups = backbone_operations(backbone, image_size)
    levels = (0, *backbone.levels)
    worst, depth, log_width = 0.0, 0, 0.0
    for index, group in enumerate(groups):
        for op in main_convolutions(group):
            depth += 1
            log_width += math.log(op.fan_in)
        if index + 1 == len(groups) or levels[index + 1] > levels[index]:
            worst = max(worst, depth * math.exp(-log_width / depth))
    return worst


def count_spec(spec: Spec, form: Form = "merged", image_size: int | None = None) -> Counts:
    """Counts of a backbone or of a whole detector at `image_size` pixels (its own, or 640, unless told)."""
    backbone = backbone_of(spec)
    side = image_side(spec, image_size)
    layers = len(main_convolutions(operations(backbone, "merged", side)))
    return count_operations(operations(spec, form, side), layers, effectiveness(backbone, side))
