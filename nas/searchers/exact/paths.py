"""Paths through boxes of blocks under limits that became prices (Lagrange multipliers).

At any prices that are not negative, score minus priced costs plus priced limits of the best path is a bound on what every
member within the limits scores. Of the best path it is also known by how much it misses each limit, which is the slope of
the bound in that limit's price: the prices of the lowest bound are found by tangents from both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nas.searchers.exact.grids import Boxes
from nas.searchers.exact.parts import Integers
from nas.searchers.problem import Array

#: Turns in which two prices are sought between which the lowest bound is, and then the one of the lowest; rounds over
#: several limits, and the share of the bound that is worth another.
_BRACKET, _TURNS, _ROUNDS, _WORTH = 40, 12, 3, 1e-4

#: Costs (n, limits) and scores (n,) of n choices.
Priced = tuple[Array, Array]


@dataclass(frozen=True)
class Reach:
    """What all paths come to at some prices.

    value: no path is worth more; behind: of every part, the best behind each state after it; best: of every block, of its
    best box for each pair of groups (before, after); costs: of the best path; stem, path: its group and its boxes.
    """

    value: float
    behind: list[Array]
    best: list[Array]
    costs: Array
    stem: int
    path: list[int]


@dataclass(frozen=True)
class Paths:
    """From a group of the stem through a box of every block to what stands behind the chain.

    boxes: by block; stem: by group; end: by the states after the last block, its groups behind those of all `taps`, the
    parts (0 is the stem) whose groups the end depends on; counts: of groups, by part; limits: of the costs.
    """

    boxes: list[Boxes]
    stem: Priced
    end: Priced
    taps: list[int]
    counts: list[int]
    limits: Array

    def reach(self, prices: Array, scored: bool = True) -> Reach:
        """At these prices of the costs; scored False: as if no score counted."""
        values = [boxes.worth(prices, scored) for boxes in self.boxes]
        best, keys = [], list[Integers]()
        for index, (boxes, value) in enumerate(zip(self.boxes, values, strict=True)):
            table = np.full((self.counts[index], self.counts[index + 1]), -np.inf)
            keys.append(boxes.groups[:, 0] * self.counts[index + 1] + boxes.groups[:, 2])
            if len(boxes):
                first = np.flatnonzero(np.diff(keys[-1], prepend=-1))
                table.reshape(-1)[keys[-1][first]] = np.maximum.reduceat(value, first)
            best.append(table)
        behind = [_worth(self.end, prices, scored).reshape(-1, self.counts[-1])]
        for index in range(len(best) - 1, -1, -1):
            behind.insert(0, (best[index] + self._after(index, behind[0])).max(axis=2))
        total = _worth(self.stem, prices, scored) + behind[0][0]
        carry, here, path, stem = 0, int(total.argmax()), list[int](), int(total.argmax())
        if total[stem] == -np.inf:
            return Reach(-np.inf, behind, best, np.zeros(len(prices)), stem, path)
        for index, count in enumerate(self.counts[1:]):
            after = self._after(index, behind[index + 1])
            out = int((best[index][here] + after[carry, here if index in self.taps else 0]).argmax())
            first, last = np.searchsorted(keys[index], [here * count + out, here * count + out + 1])
            path.append(int(first + values[index][first:last].argmax()))
            carry, here = carry * self.counts[index] + here if index in self.taps else carry, out
        costs = self.stem[0][stem] + self.end[0][carry * self.counts[-1] + here]
        costs = costs + sum(boxes.costs[row] for boxes, row in zip(self.boxes, path, strict=True))
        return Reach(float(total[stem] + prices @ self.limits), behind, best, costs, stem, path)

    def through(self, reach: Reach, prices: Array, scored: bool = True) -> list[Array]:
        """The worth of the best path through every box, by block."""
        front = _worth(self.stem, prices, scored)[None] + float(prices @ self.limits)
        result = []
        for index, (boxes, best) in enumerate(zip(self.boxes, reach.best, strict=True)):
            around = (front[:, :, None] + self._after(index, reach.behind[index + 1])).max(axis=0)
            result.append(boxes.worth(prices, scored) + around[boxes.groups[:, 0], boxes.groups[:, 2]])
            step = front[:, :, None] + best
            front = step.reshape(-1, best.shape[1]) if index in self.taps else step.max(axis=1)
        return result

    def lowest(self, prices: Array, look: Callable[[Reach], None]) -> tuple[Reach, Array]:
        """The lowest bound that is found from these prices on, and its prices; `look` is shown every reach."""
        best = self.reach(prices)
        look(best)
        for _ in range(_ROUNDS if len(prices) > 1 else 1):
            before = best.value
            for column in range(len(prices)):
                best, prices = self._along(column, best, prices, look)
            if before - best.value <= _WORTH * max(abs(best.value), 1.0):
                break
        return best, prices

    def _along(self, column: int, best: Reach, prices: Array, look: Callable[[Reach], None]) -> tuple[Reach, Array]:
        """The same with the price of one limit moved to where the bound is lowest."""
        limit = float(self.limits[column])

        def at(price: float) -> _Point:
            changed = prices.copy()
            changed[column] = price
            reach = self.reach(changed)
            look(reach)
            return _Point(price, limit - float(reach.costs[column]), reach, changed)

        here = _Point(float(prices[column]), limit - float(best.costs[column]), best, prices)
        least = _WORTH * max(abs(best.value), 1.0) / max(abs(limit), 1e-9)
        left: _Point | None = None
        right: _Point | None = None
        for _ in range(_BRACKET):
            left, right = (left, here) if here.slope >= 0 else (here, right)
            if right is not None and (left is not None or right.price == 0.0):
                break
            wanted = max(2 * here.price, least) if here.slope < 0 else here.price / 2
            here = at(wanted if wanted >= least else 0.0)
        for _ in range(_TURNS if left is not None and right is not None else 0):
            assert left is not None and right is not None
            rise = right.reach.value - left.reach.value
            price = (rise + left.slope * left.price - right.slope * right.price) / (left.slope - right.slope)
            if not left.price < price < right.price:
                break
            meet, here = left.reach.value + left.slope * (price - left.price), at(price)
            left, right = (left, here) if here.slope >= 0 else (here, right)
            if here.reach.value - meet <= 1e-6 * max(abs(meet), 1.0):
                break
        for found in (left, right):
            if found is not None and found.reach.value < best.value:
                best, prices = found.reach, found.prices
        return best, prices

    def _after(self, index: int, behind: Array) -> Array:
        """Values of states after block `index` as (states before it, its inputs or 1, its outputs)."""
        return behind.reshape(-1, self.counts[index] if index in self.taps else 1, self.counts[index + 1])


@dataclass(frozen=True)
class _Point:
    """A price of one limit, the slope of the bound there, and what all paths come to at all prices."""

    price: float
    slope: float
    reach: Reach
    prices: Array


def _worth(priced: Priced, prices: Array, scored: bool) -> Array:
    costs, score = priced
    kept: Array = np.where(score > -np.inf, score if scored else 0.0, -np.inf) - costs @ prices
    return kept
