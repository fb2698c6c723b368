"""Peak activation memory of a deployed network, from its operations alone.

While a block runs, its input, its output, what its own branches keep for a sum or a concatenation, and the maps that the
neck still needs lie in memory; weights do not count. A list does not say who reads whom inside a stage with several
branches, so that its share is estimated; `nas.measure.trace.trace_peak_memory_mb` is exact for any module.
"""

from __future__ import annotations

from collections.abc import Sequence

from nas.blocks.operation import Operation
from nas.lowering.network import backbone_operations, neck_and_head_operations, out_sizes
from nas.spec import Backbone, DetectorSpec, Spec, backbone_of, image_side


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
