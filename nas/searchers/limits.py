"""Limits that cannot be kept, refused before a search begins, and those that its best did not use up.

What every member of a space costs at least: most costs are sums over operations that grow with every width, depth and
kernel, so that the member with all of them at their lowest bounds the sum once its choices are the cheapest ones and the
shortcuts that equal widths would save are left out. Peak memory is no sum, but no less than what any one operation reads
and writes. rho falls with width and is bounded by the stem alone. A table of measurements is no monotone function; it
says what it charges at least.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from nas.blocks.operation import CONVOLUTIONS, in_form, main_convolutions
from nas.cost.budget import TIMES, Budget, Limited
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.frame import Frame
from nas.lowering import Operation, backbone_operations
from nas.lowering.network import neck_and_head_operations, out_sizes
from nas.searchers.base import Candidate
from nas.searchers.loop import SearchOutcome
from nas.spec import DetectorSpec, Spec, backbone_of
from search_spaces import SearchSpace

Cost = Callable[[Sequence[Operation]], float]


def least_cost(
    limited: str, space: SearchSpace[Spec], frame: Frame | None, image_size: int, table: LatencyTable | None = None
) -> float:
    """A value that no member of the space in its frame (None: bare) stays below; 0 where nothing is known.

    limited: what costs it, as `nas.cost.budget.Limited` writes it; table: that of the search.
    """
    asked = Limited.of(limited)
    metric, table = asked.metric, LatencyTable.load(asked.hardware) if asked.hardware else table
    cost = _cost(metric, table)
    smallest = space.smallest(cost, image_size)
    if smallest is None:
        return 0.0
    backbone = backbone_of(smallest)
    stem = [op for op in backbone_operations(backbone, image_size)[0] if op.kind in CONVOLUTIONS]
    if metric == "rho":
        return 1 / stem[0].fan_in if backbone.levels[0] == 1 else 0.0
    parts = _needed(smallest, frame, image_size)
    if asked.part:
        return cost([op for name, op in parts if asked.part == (name or op.role)])
    if metric == "layers":
        return cost([op for group in backbone_operations(backbone, image_size) for op in group])
    return cost([op for _, op in parts]) + _fixed(metric, table, smallest, frame, image_size)


def _fixed(metric: str, table: LatencyTable | None, spec: Spec, frame: Frame | None, image_size: int) -> float:
    """Milliseconds that no network of a table escapes; UserError where e2e_ms is asked for and not known."""
    if metric not in TIMES or table is None:
        return 0.0
    whole = spec if isinstance(spec, DetectorSpec) or frame is None else frame.detector(spec)
    if metric != "e2e_ms":
        return table.offset_ms
    if not isinstance(whole, DetectorSpec):
        raise UserError("e2e_ms is of whole detectors: search with scope=detector, or limit latency_ms")
    return table.offset_ms + table.after_ms(whole.head.num_classes, whole.head.one_to_one, image_size)


def _cost(metric: str, table: LatencyTable | None) -> Cost:
    """The metric of some operations, in its unit; nothing for rho and for milliseconds without a table."""

    def touched(operations: Sequence[Operation]) -> float:
        return max((op.reads + op.writes for op in operations if op.role != "se"), default=0)

    costs: dict[str, Cost] = {
        "params_m": lambda operations: sum(op.params for op in operations) / 1e6,
        "flops_g": lambda operations: 2 * sum(op.macs for op in operations) / 1e9,
        "activations_m": lambda operations: sum(op.writes for op in operations if op.kind in CONVOLUTIONS) / 1e6,
        "layers": lambda operations: len(main_convolutions(operations)),
        "peak_memory_mb": lambda operations: 2 * touched(operations) / 1e6,
    }
    if metric in TIMES and table is not None:
        return lambda operations: table.at_least(in_form(operations, "folded"))
    return costs.get(metric, lambda operations: 0.0)


def _needed(spec: Spec, frame: Frame | None, image_size: int) -> list[tuple[str, Operation]]:
    """The operations of a network without what a wider member may lack, shortcuts and their sums, each behind its part of
    the backbone."""
    backbone = backbone_of(spec)
    groups = backbone_operations(backbone, image_size)
    found = [("stem", op) for op in groups[0]]
    for block, level, group in zip(backbone.blocks, backbone.levels, groups[1:], strict=True):
        part = f"stride{backbone.stem.stride * 2**level}"
        if block.shortcuts_may_go:
            found += [(part, replace(op, fused_add=False)) for op in group if op.role != "skip"]
        else:
            found += [(part, op) for op in group]
    whole = spec if isinstance(spec, DetectorSpec) or frame is None else frame.detector(spec)
    if isinstance(whole, DetectorSpec):
        c3, c4, c5 = backbone.out_channels
        sizes = out_sizes(backbone, image_size)
        found += [("", op) for op in neck_and_head_operations(whole.neck, whole.head, (c3, c4, c5), sizes)]
    return found


def limit_notes(space: SearchSpace[Spec], budget: Budget, best: Candidate, outcome: SearchOutcome) -> list[str]:
    """One note for every limit that the best does not use up to within 2 %, and for a search without a proof its reason."""
    notes, use = [], budget.use(best.metrics)
    loose = [metric for metric in use if metric not in budget.binding(best.metrics)]
    unit = int(getattr(space, "unit_layers", 1))
    backbone = backbone_of(best.spec)
    full = "layers" in loose and budget["layers"] - best.metrics["layers"] < unit
    stops = [
        f"the limit on {metric}" for metric in budget.metrics if metric not in loose or (full and metric == "layers")
    ]
    stops += [f"space limit {cap}" for cap in space.reached(backbone)]
    for metric in loose:
        if full and metric == "layers":
            notes.append(
                f"layers is used up: {best.metrics['layers']:.0f} of {budget['layers']:g}, and one more unit has {unit}"
            )
            continue
        if outcome.certificate is not None:
            why = (
                f"the proven optimum stands at {', '.join(stops)}"
                if stops
                else "no member that uses more of it is better"
            )
        else:
            why = f"the search ended after {outcome.evaluated:,} evaluations, without a proof that using more does not help"
            why += f"; its best stands at {', '.join(stops)}" if stops else ""
        notes.append(f"{metric} does not bind ({100 * use[metric]:.0f} % used): {why}")
    if outcome.unproven:
        notes.append(f"the optimum is unproven: {outcome.unproven}")
    if outcome.open_levels:
        notes.append(f"the front is not proven at {outcome.open_levels} of the costs that exact search tried")
    return notes
