"""Limits on what a network may cost: inside or outside, and which limit binds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nas.errors import UserError, shown
from nas.options import NotNegative, Positive, check_value

#: Every metric that a budget can limit, with the unit that people read.
METRICS: dict[str, str] = {
    "latency_ms": "ms",
    "e2e_ms": "ms until boxes",
    "flops_g": "GFLOPs",
    "params_m": "M parameters",
    "activations_m": "M activations",
    "peak_memory_mb": "MB",
    "layers": "layers",
    "rho": "effectiveness",
}
#: What can be limited alone, by the metrics that are sums: the stem, the blocks that write maps of a stride, neck, head.
PARTS = ("stem", "stride2", "stride4", "stride8", "stride16", "stride32", "neck", "head")
_NO_SUMS = ("e2e_ms", "peak_memory_mb", "rho")
#: Those that a latency table tells.
TIMES = ("latency_ms", "e2e_ms")


@dataclass(frozen=True, slots=True)
class Limited:
    """What is limited, written `metric[.part][@hardware]`: a metric, of the whole network or of one of PARTS; milliseconds
    by the table of the search, or by another one."""

    metric: str
    part: str = ""
    hardware: str = ""

    @classmethod
    def of(cls, text: object) -> Limited:
        """The cost that a text names; raises UserError for an unknown metric or part, and for one that it cannot have."""
        name, _, hardware = str(text).partition("@")
        metric, _, part = name.partition(".")
        if metric not in METRICS:
            raise UserError(f"unknown budget metric {shown(metric)}; known: {', '.join(METRICS)}")
        if part and (part not in PARTS or metric in _NO_SUMS):
            known = f"has {', '.join(PARTS)}" if metric not in _NO_SUMS else "has none, it is no sum"
            raise UserError(f"a limit on {text}: there is no part {shown(part)}; {metric} {known}")
        if hardware and metric not in TIMES:
            raise UserError(f"a limit on {text}: {metric} is the same on every hardware; write {name}")
        return cls(metric, part, hardware)

    def __str__(self) -> str:
        return self.metric + f".{self.part}" * bool(self.part) + f"@{self.hardware}" * bool(self.hardware)


#: The most that something may cost, or the least and the most (None: no such end).
Limit = float | tuple[float, float | None]


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits by cost (`str(Limited)`); a value equal to its limit is inside."""

    limits: tuple[tuple[str, Limit], ...]

    @classmethod
    def of(cls, limits: Mapping[str, object] | Iterable[tuple[str, object]], hardware: str = "") -> Budget:
        """A budget from {cost: limit}, a limit being the most or (least, most); hardware: the table of the search.

        Raises UserError for none, an unknown cost, two limits on one, or a limit that is not positive.
        """
        found: dict[str, Limit] = {}
        for text, limit in dict(limits).items():
            cost = Limited.of(text)
            name = str(replace(cost, hardware="") if cost.hardware == hardware else cost)
            if name in found:
                raise UserError(f"two limits on {name}: {shown(found[name])} and {shown(limit)}; keep one")
            found[name] = _limit(name, limit)
        if not found:
            raise UserError(f"a budget needs at least one limit; metrics: {', '.join(METRICS)}")
        return cls(tuple(sorted(found.items())))

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.limits)

    @property
    def ranges(self) -> tuple[tuple[str, float, float], ...]:
        """What is limited, with the least (0 if any is) and the most (infinite if any is) that it may be."""
        ends = ((name, limit if isinstance(limit, tuple) else (0.0, limit)) for name, limit in self.limits)
        return tuple((name, low, math.inf if high is None else high) for name, (low, high) in ends)

    def __getitem__(self, name: str) -> float:
        return next((high for cost, _, high in self.ranges if cost == name), math.inf)

    def __str__(self) -> str:
        return ", ".join(
            f"{name} >= {low:g}" if high == math.inf else f"{f'{low:g} <= ' if low else ''}{name} <= {high:g}"
            for name, low, high in self.ranges
        )

    def to_dict(self) -> dict[str, object]:
        """Plain data that `of` reads."""
        return {name: list(limit) if isinstance(limit, tuple) else limit for name, limit in self.limits}

    def admits(self, metrics: Mapping[str, float]) -> bool:
        """Whether everything that is limited is within its limits."""
        return all(low <= metrics[name] <= high for name, low, high in self.ranges)

    def use(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Share of each upper limit that is used up."""
        return {name: metrics[name] / high for name, _, high in self.ranges if high < math.inf}

    def binding(self, metrics: Mapping[str, float], tolerance: float = 0.02) -> list[str]:
        """What is within `tolerance` of the most, or of the least, that it may be."""
        return [
            name
            for name, low, high in self.ranges
            if metrics[name] / high >= 1 - tolerance or 0 < metrics[name] <= low * (1 + tolerance)
        ]


def _limit(name: str, limit: Any) -> Limit:
    what = f"the limit on {name}"
    if not isinstance(limit, list | tuple):
        return float(check_value(what, limit, Positive))
    low, high = limit if len(limit) == 2 else (None, None)
    low = check_value(what, low or 0.0, NotNegative)
    high = check_value(what, high, Positive | None)  # type: ignore[arg-type]
    if (high is None and not low) or (high is not None and low > high):
        raise UserError(f"{what} must be the most, or [least, most] of which one may be null, got {shown(limit)}")
    return (low, high) if low else high
