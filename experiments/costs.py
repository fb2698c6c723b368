"""The cost columns of a table: FLOPs, parameters and predicted milliseconds, which need no training."""

from __future__ import annotations

from typing import Any

from experiments.tables import Table, detector_of
from nas.api import count, latency

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
