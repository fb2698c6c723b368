"""Chords above minus a sum of logarithms of sums, as `effective_rank` is: boxes of the sums at the ends of levels.

-ln is convex: between two points it lies below the chord through them, beyond them above. Members outside a box therefore
score more than its chords say, so that boxes without the optimum soon fall below the best that is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nas.searchers.exact.parts import Integers, Mask
from nas.searchers.problem import Array

#: Room for the rounding of edges.
_HAIR = 1e-12


@dataclass(frozen=True)
class LogBox:
    """Intervals, from low to high, of the sums at the ends of the scored levels; weights: of their logarithms."""

    low: Array
    high: Array
    weights: Array

    @property
    def slopes(self) -> Array:
        """Of minus the weighted logarithms between the edges."""
        wide = np.maximum(self.high - self.low, _HAIR * self.high)
        return self.weights * np.where(self.high > self.low, np.log(self.high / self.low) / wide, 1.0 / self.low)

    @property
    def base(self) -> float:
        """What the chords come to where all sums are zero."""
        return float((self.slopes * self.low - self.weights * np.log(self.low)).sum())

    @property
    def excess(self) -> float:
        """The most that the chords promise too much: of an interval of the ratio r, no more than ln(r)^2 / 8 of its weight."""
        return float((self.weights * np.log(self.high / self.low) ** 2).sum() / 8)

    def below(self, score: float) -> LogBox | None:
        """The part in which a member may score more than `score`; None if there is none."""
        low = np.maximum.accumulate(self.low)  # sums grow from level to level
        most = -self.weights * np.log(low)
        with np.errstate(over="ignore"):
            reach = np.exp((most.sum() - most - score) / self.weights) * (1 + _HAIR)
        high = np.minimum.accumulate(np.minimum(self.high, reach)[::-1])[::-1]
        return replace(self, low=low, high=high) if (low <= high).all() else None

    def halves(self) -> Iterator[LogBox]:
        """Two boxes, split where the chords promise too much the most."""
        widest = int((self.weights * np.log(self.high / self.low) ** 2).argmax())
        middle = np.sqrt(self.low[widest] * self.high[widest])
        for edge in ("low", "high"):
            values = getattr(self, edge).copy()
            values[widest] = middle
            yield replace(self, **{edge: values})


class LogScore:
    """Minus a sum of logarithms; weights: by level, of the logarithms of the gains up to its end, none negative.

    Parts are scored by minus their gains.
    """

    def __init__(self, weights: tuple[float, ...]) -> None:
        self.scored = [level for level, weight in enumerate(weights) if weight]
        self._weights = np.array([weights[level] for level in self.scored])

    def box(self, least: Array, most: Array, channels: Integers, reached: Mask) -> LogBox | None:
        """The box of all members; None where a sum has no end, as nothing fits."""
        return LogBox(-most, np.maximum(-least, -most), self._weights) if np.isfinite(most).all() else None

    def scores(self, sums: Array, channels: Integers) -> Array:
        result: Array = -(np.log(-sums) * self._weights).sum(axis=1)
        return result
