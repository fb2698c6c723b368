"""What a network costs on paper, read off its operations: parameters, MACs, activations, layers, rho, and peak memory.

While a block runs, its input, its output, what its own branches keep for a sum or a concatenation, and the maps that the
neck still needs lie in memory; weights do not count. A list does not say who reads whom inside a stage with several
branches, so that its share is estimated; `nas.measure.trace.trace_peak_memory_mb` is exact for any module.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from nas.blocks.operation import CONVOLUTIONS, Operation, main_convolutions
from nas.lowering import Form, backbone_operations, operations, out_sizes
from nas.lowering.network import neck_and_head_operations
from nas.spec import Backbone, DetectorSpec, Spec, backbone_of, image_side


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


def local_peak(operations: Sequence[Operation]) -> int:
    """The largest number of values alive while one part (stem, block, or neck and head) runs on its own."""
    peak = 0
    for index, operation in enumerate(operations):
        if operation.role == "se":
            continue
        peak = max(peak, operation.reads + operation.writes + _kept(operations, index))
    return peak


def _kept(operations: Sequence[Operation], index: int) -> int:
    """Values beside an operation's input and output that a later sum or concatenation of the same part still reads."""
    operation = operations[index]
    if operation.fused_add:
        return operation.writes
    if operation.role == "skip":
        # The main branch has run; its result waits for the shortcut.
        main = [earlier.writes for earlier in operations[:index] if earlier.fused_add]
        if main:
            return main[-1]
    place = (operation.height, operation.width)
    for later in operations[index + 1 :]:
        if later.unit != operation.unit:
            break
        if (
            later.fused_add
            and operation.stride == 1
            and operation.unit >= 0
            and index
            and _same_unit(operations, index)
        ):
            return later.writes
    wanted, written = 0, 0
    for later in operations[index + 1 :]:
        if later.kind == "concat" and (later.height, later.width) == place:
            wanted = later.reads
            break
    if wanted:
        for earlier in reversed(operations[:index]):
            if earlier.kind == "concat" and (earlier.height, earlier.width) == place:
                break
            if (earlier.height, earlier.width) == place:
                written += earlier.writes
        written -= operation.reads
    return max(0, min(wanted - operation.writes, written))


def _same_unit(operations: Sequence[Operation], index: int) -> bool:
    """Whether an operation is not the first of its unit, whose input is the one that the sum reads."""
    before = operations[index - 1]
    return before.unit == operations[index].unit and before.role == operations[index].role


def peak_memory_mb(spec: Spec, image_size: int | None = None, value_bytes: int = 2) -> float:
    """Megabytes (10^6) of activations alive at once in the deployed form at batch 1; values of FP16 unless told.

    image_size: pixels, a detector's own or 640 unless told.
    """
    backbone = backbone_of(spec)
    side = image_side(spec, image_size)
    parts = backbone_operations(backbone, side, "folded")
    held, peak = 0, local_peak(parts[0])
    sizes = dict(zip(backbone.out_blocks, out_sizes(backbone, side), strict=True))
    previous = 0
    for index, part in enumerate(parts[1:]):
        peak = max(peak, held + local_peak(part))
        held += previous
        previous = backbone.blocks[index].out * sizes[index][0] * sizes[index][1] if index in sizes else 0
    if isinstance(spec, DetectorSpec):
        peak = max(peak, _closing_peak(spec, backbone, tuple(sizes.values())))
    return peak * value_bytes / 1e6


def _closing_peak(spec: DetectorSpec, backbone: Backbone, sizes: tuple[tuple[int, int], ...]) -> int:
    """Neck and head: the maps of the backbone beside the local peak."""
    c3, c4, c5 = backbone.out_channels
    operations = neck_and_head_operations(spec.neck, spec.head, (c3, c4, c5), sizes, "folded")
    maps = sum(width * height * length for width, (height, length) in zip((c3, c4, c5), sizes, strict=True))
    return maps + local_peak(operations)
