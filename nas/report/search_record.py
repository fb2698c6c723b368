"""What a search report shows, gathered once for the PNGs, the HTML page and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.cost.latency import LatencyTable
from nas.lowering import Operation, backbone_operations
from nas.lowering.network import neck_and_head_operations, out_sizes
from nas.spec import Backbone, DetectorSpec, backbone_of

#: Metrics that stand beside every score, with their axis labels.
LABELS = {
    "latency_ms": "predicted latency (ms)",
    "flops_g": "GFLOPs",
    "params_m": "parameters (M)",
    "activations_m": "activations (M)",
    "peak_memory_mb": "peak memory (MB)",
    "layers": "layers",
    "rho": "effectiveness rho",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One stem, block, neck or head of a network and what it costs."""

    name: str
    shape: str
    out: int
    depth: int
    stride: int
    ms: float
    macs: int
    params: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A published network set beside the search."""

    name: str
    score: float
    metrics: Mapping[str, float]
    inside: bool


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """Everything a reader of the report sees.

    columns: sampled evaluations, one array a metric, with `evaluation`, `score`, `feasible`; best_curve: (evaluation,
    score) at each improvement; prices: the winner's latency, one row an operation (`Latency.explain`); near: networks of
    other shapes within `near_share` of the best score.
    """

    title: str
    scorer: str
    limits: Mapping[str, float]
    binding: tuple[str, ...]
    notes: tuple[str, ...]
    columns: Mapping[str, npt.NDArray[np.float64]]
    best_curve: npt.NDArray[np.float64]
    winner: Mapping[str, float]
    parts: tuple[Part, ...]
    prices: tuple[Mapping[str, Any], ...]
    front: tuple[Mapping[str, Any], ...] = ()
    near: tuple[Mapping[str, Any], ...] = ()
    near_share: float = 0.01
    marks: tuple[Mark, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)


def network_parts(spec: Backbone | DetectorSpec, image_size: int, table: LatencyTable | None) -> tuple[Part, ...]:
    """Stem, blocks, neck and head of a network with the cost of each."""
    backbone = backbone_of(spec)
    groups = backbone_operations(backbone, image_size, "folded")
    stem = backbone.stem
    parts = [_part("stem", f"{stem.kind} {stem.kernel}x{stem.kernel}", stem.out, 1, stem.stride, groups[0], table)]
    for index, (block, group) in enumerate(zip(backbone.blocks, groups[1:], strict=True)):
        kind = getattr(block, "kind", type(block).__name__)
        width = getattr(block, "bottleneck", getattr(block, "hidden", ""))
        label = f"block {index}" + (
            f" (C{3 + backbone.out_blocks.index(index)})" if index in backbone.out_blocks else ""
        )
        parts.append(
            _part(label, f"{kind} {block.out}/{width}".rstrip("/"), block.out, block.depth, block.stride, group, table)
        )
    if isinstance(spec, DetectorSpec):
        c3, c4, c5 = backbone.out_channels
        tail = neck_and_head_operations(spec.neck, spec.head, (c3, c4, c5), out_sizes(backbone, image_size), "folded")
        neck = tuple(op for op in tail if op.role == "neck")
        head = tuple(op for op in tail if op.role == "head")
        widths = "/".join(map(str, spec.neck.out))
        parts.append(_part("neck", f"RepGFPN {widths}", spec.neck.out[-1], spec.neck.depth, 1, neck, table))
        parts.append(_part("head", "ZeroHead", spec.head.num_classes, 1 + spec.head.stacked, 1, head, table))
    if table is not None and table.offset_ms:
        # what a whole network costs beside its operations, by the table's calibration
        parts.append(Part("network", "fixed cost", 0, 1, 1, table.offset_ms, 0, 0))
    return tuple(parts)


def _part(
    name: str,
    shape: str,
    out: int,
    depth: int,
    stride: int,
    group: tuple[Operation, ...],
    table: LatencyTable | None,
) -> Part:
    ms = sum(table.price(op).ms for op in group) if table else 0.0
    return Part(name, shape, out, depth, stride, ms, sum(op.macs for op in group), sum(op.params for op in group))
