"""Costs that need no training: FLOPs, parameters and predicted milliseconds, of a table's rows and of single networks."""

from __future__ import annotations

from typing import Any

from experiments.tables import Table, detector_of
from nas.api import count, latency
from nas.cost.latency import LatencyTable
from nas.frame import Frame
from nas.searchers.problem import Objective
from nas.spec import Spec

#: The report's milliseconds are those of TensorRT 7.
HARDWARE = "t4_tensorrt7_fp16"


def cost_rows(table: Table, hardware: str = HARDWARE) -> list[dict[str, Any]]:
    """One dictionary a row: our costs beside the published ones, relative errors where both exist."""
    rows = []
    for row in table.rows:
        spec = detector_of(table, row)
        counts = count(spec)
        ours = {
            "flops_g": counts.flops / 1e9,
            "params_m": counts.params / 1e6,
            "latency_ms": float(latency(spec, hardware)),
        }
        errors = {
            metric: ours[metric] / row.published[metric] - 1 for metric in ours if row.published.get(metric) is not None
        }
        rows.append(
            {
                "row": row.name,
                "ours": ours,
                "published": dict(row.published),
                "error": errors,
                "ambiguous": row.ambiguous,
            }
        )
    return rows


class Latencies:
    """Predicted milliseconds of the whole detector in a frame around a backbone, parts remembered."""

    def __init__(self, hardware: str, frame: Frame) -> None:
        self.table = LatencyTable.load(hardware)
        self._objective = Objective(None, self.table, frame)

    def __call__(self, spec: Spec) -> float:
        return self._objective.evaluate(spec)["latency_ms"]
