"""The price of one operation, and what anything that prices must offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from nas.blocks.operation import Operation

How = Literal["exact", "interpolated", "roofline", "model"]
Bound = Literal["compute", "memory", "launch"]


@dataclass(frozen=True, slots=True)
class Price:
    """Milliseconds of one operation: of a pricer for its whole batch, of a `LatencyTable` per image.

    how: "exact" a measured row, "interpolated" between measured rows, "roofline" a bound scaled to the measured rows,
        "model" the calibrated kernel model.
    """

    ms: float
    how: How
    bound: Bound


class Pricer(Protocol):
    """What a kind of table must offer."""

    def price_many(self, operations: Sequence[Operation]) -> list[Price]:
        """One price per operation, in order."""

    def at_least(self, operations: Sequence[Operation]) -> float:
        """What these operations cost together at least, were any of them larger; 0 where nothing is known."""
