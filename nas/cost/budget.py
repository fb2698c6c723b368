"""Limits on what a network may cost: inside or outside, and which limit binds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nas.errors import UserError, shown
from nas.options import Positive, check_value

#: Every metric that a budget can limit, with the unit that people read.
METRICS: dict[str, str] = {
    "latency_ms": "ms",
    "flops_g": "GFLOPs",
    "params_m": "M parameters",
    "activations_m": "M activations",
    "peak_memory_mb": "MB",
    "layers": "layers",
    "rho": "effectiveness",
}


@dataclass(frozen=True, slots=True)
class Budget:
    """Upper limits by metric; a value equal to its limit is inside."""

    limits: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, limits: Mapping[str, float] | Iterable[tuple[str, float]]) -> Budget:
        """A budget from {metric: limit}; raises UserError for none, an unknown metric or a limit that is not positive."""
        pairs = sorted(dict(limits).items(), key=lambda pair: str(pair[0]))
        if not pairs:
            raise UserError(f"a budget needs at least one limit; metrics: {', '.join(METRICS)}")
        for metric, _ in pairs:
            if metric not in METRICS:
                raise UserError(f"unknown budget metric {shown(metric)}; known: {', '.join(METRICS)}")
        return cls(tuple((metric, check_value(f"the limit on {metric}", limit, Positive)) for metric, limit in pairs))

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(metric for metric, _ in self.limits)

    def __getitem__(self, metric: str) -> float:
        return dict(self.limits).get(metric, math.inf)

    def admits(self, metrics: Mapping[str, float]) -> bool:
        """Whether every limited metric is within its limit."""
        return all(metrics[metric] <= limit for metric, limit in self.limits)

    def use(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Share of each limit that is used up."""
        return {metric: metrics[metric] / limit for metric, limit in self.limits}

    def binding(self, metrics: Mapping[str, float], tolerance: float = 0.02) -> list[str]:
        """Limits that are used up to within `tolerance`."""
        return [metric for metric, share in self.use(metrics).items() if share >= 1 - tolerance]
