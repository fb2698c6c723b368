"""Planes above a score that sees the maps through a neck, as `mae_neck` does, by the widths C3, C4, C5.

The score is a convex function of the gains up to C3, C4 and C5, another one for every triple of their widths. What a level
adds to the gains before it is never little, so that the signal of C5 outweighs the others wherever they meet: in
boxes of what the levels add, one slope a level and one base a triple make planes that are nearly the score itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np

from nas.scorers.formula import Formula
from nas.searchers.exact.parts import Integers, Mask
from nas.searchers.problem import Array

#: Corners of a box of three sums.
_CORNERS = np.array(list(product((0.0, 1.0), repeat=3)))


@dataclass(frozen=True)
class NeckBox:
    """Intervals, from low to high, of the gains up to C3, of those from there to C4, and of those from there to C5.

    score: of these three (3,), by the state after the last block; reached: the states that there are.
    """

    low: Array
    high: Array
    score: Callable[[Array], Array]
    reached: Mask

    def _at(self, share: Array) -> Array:
        return self.low + share * (self.high - self.low)

    @cached_property
    def _corners(self) -> list[tuple[Array, Array]]:
        """The corners, and the scores there."""
        return [(corner, self.score(corner)) for corner in map(self._at, _CORNERS)]

    @cached_property
    def _steps(self) -> Array:
        """What one more of each adds to the score, on average over the box and the states."""
        wide = np.maximum(self.high - self.low, 1e-9)
        rises = [self.score(self.low + wide * one) - self.score(self.low) for one in np.eye(3)]
        return np.array([rise[self.reached].mean() for rise in rises]) / wide

    @property
    def slopes(self) -> Array:
        steps = self._steps
        return steps - np.append(steps[1:], 0.0)  # a gain up to C3 is one up to C4 and C5, too

    @cached_property
    def base(self) -> Array:
        above: Array = np.max([score - self._steps @ corner for corner, score in self._corners], axis=0)
        return above

    @property
    def excess(self) -> float:
        middle = self._at(np.full(3, 0.5))
        over = [self.base + self._steps @ at - score for at, score in (*self._corners, (middle, self.score(middle)))]
        return float(np.max(over, axis=0)[self.reached].max())

    def below(self, score: float) -> NeckBox:
        return self

    def halves(self) -> Iterator[NeckBox]:
        """Two boxes, split where one interval bends the score the most."""

        def bend(number: int) -> float:
            side = np.where(np.arange(3) == number, self.high, self.low)
            middle = (self.low + side) / 2
            over = (self.score(self.low) + self.score(side)) / 2 - self.score(middle)
            return float(over[self.reached].max())

        widest = max(range(3), key=lambda number: (bend(number), self.high[number] - self.low[number]))
        middle = (self.low[widest] + self.high[widest]) / 2
        for edge in ("low", "high"):
            values = getattr(self, edge).copy()
            values[widest] = middle
            yield replace(self, **{edge: values})


class NeckScore:
    """A score that sees the maps through a neck, which is rising and convex in the gains that parts are scored by.

    scored: levels of C3, C4 and C5.
    """

    def __init__(self, formula: Formula, scored: list[int]) -> None:
        self.scored, self._formula = scored, formula

    def box(self, least: Array, most: Array, channels: Integers, reached: Mask) -> NeckBox | None:
        """The box of all members; None where a sum has no end, as nothing fits."""
        if not np.isfinite(most).all():
            return None
        low = np.diff(least, prepend=0.0)  # what every level adds at least
        high = most - np.array([0.0, *least[:-1]])
        rows = np.flatnonzero(reached)

        def score(added: Array) -> Array:
            result = np.zeros(len(channels))
            result[rows] = self.scores(np.tile(added.cumsum(), (len(rows), 1)), channels[rows])
            return result

        return NeckBox(low, np.maximum(high, low), score, reached)

    def scores(self, sums: Array, channels: Integers) -> Array:
        nothing = np.zeros((len(sums), 0))
        return self._formula.combine(sums, channels.astype(np.float64), np.zeros(3), nothing, {})
