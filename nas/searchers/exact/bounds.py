"""Bounds for exact search: the best that can still come, computed from the back with costs rounded down to bins."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nas.searchers.exact.effort import Effort
from nas.searchers.exact.parts import CELLS, Integers, Options, Parts, most_bins, rising
from nas.searchers.problem.objective import Array

#: Slack of costs that are compared with a limit after a handful of floating-point sums.
SLACK = 1e-12


class Relaxation:
    """A chain under one cost: a weighted sum of the budgeted costs as shares of their limits, so that 1 is the limit.

    Whatever keeps every limit keeps this one, so its optimum bounds theirs (a surrogate relaxation).
    weights: of the resources, summing to 1 (none for no resource); bins: resolution of the bounds; effort: what counts
    the work on them; cells: how many numbers they may hold, to which `bins` is cut.
    bounds[p]: best completion (state, units left, bins left) after part p; the last entry is before the stem.
    Raises Halt if they would hold more however coarse they are.
    """

    def __init__(
        self, parts: Parts, weights: Array, bins: int = 256, effort: Effort | None = None, cells: int = CELLS
    ) -> None:
        self.parts, self.weights, self._effort = parts, weights, effort or Effort()
        self.costs = [self.cost_of(options.costs) for options in parts.options]
        self.behind = self.cost_of(parts.behind_costs)
        self._most = most_bins(parts.widths, parts.carries, parts.units, cells)
        self._compute(min(bins, self._most))

    def refine(self) -> bool:
        """Compute the bounds anew with four times the bins, as far as they fit; whether that is more than before."""
        finer = min(4 * self.bins, self._most)
        if finer <= self.bins:
            return False
        self._compute(finer)
        return True

    def _compute(self, bins: int) -> None:
        self.bins, parts, self.bounds = bins, self.parts, []
        floor = self._binned(self.behind)
        inside = np.arange(bins + 1)[None, None, :] >= floor[:, None, None]
        bound = np.where(inside, parts.behind_score[:, None, None], -np.inf)
        bounds: list[Array] = [np.broadcast_to(bound, (len(floor), parts.units + 1, bins + 1))]
        for p in range(len(parts.options) - 1, -1, -1):
            bounds.insert(0, self._before(p, bounds[0]))
        self.bounds = [*bounds[1:], bounds[0]]

    def cost_of(self, costs: Array) -> Array:
        """The one cost of costs (n, resources)."""
        return costs @ self.weights if costs.shape[1] else np.zeros(len(costs))

    def upper(self, limit: float = 1.0, units: int | None = None) -> float:
        """A bound on the score of every network of at most this cost and so many units."""
        most = self.parts.units if units is None else units
        return float(self.bounds[-1][0, most, self.bin_of(np.array(limit))])

    def bin_of(self, left: Array) -> Integers:
        """The bin of what is left of the limit, never too low."""
        return np.floor(np.maximum(left, 0.0) * self.bins + 1e-9).astype(np.int64)

    def _binned(self, costs: Array) -> Integers:
        """Costs rounded down to bins; what is far above the limit stays there."""
        return np.floor(np.minimum(costs, 1e6) * self.bins + SLACK).astype(np.int64)

    def _before(self, p: int, behind: Array) -> Array:
        """Bounds before part p from those after it."""
        parts, units, bins, options = self.parts, self.parts.units, self.bins, self.parts.options[p]
        ins, outs = len(options.starts) - 1, len(parts.widths[p])
        carry = parts.carries[p - 1] if p else 1
        tapped = p > 0 and p - 1 in parts.taps
        after = behind.reshape(carry, ins if tapped else 1, outs, units + 1, bins + 1)
        result = np.full((carry, ins, units + 1, bins + 1), -np.inf)
        for before, out, used, cost, score in self._coarse(options, self.costs[p]):
            if used > units or cost > bins:
                continue
            self._effort.spend(100 + carry * (units + 1) * (bins + 1) // 50, "bounds")
            source = after[:, before if tapped else 0, out, : units + 1 - used, : bins + 1 - cost]
            target = result[:, before, used:, cost:]
            np.maximum(target, source + score, out=target)
        return result.reshape(carry * ins, units + 1, bins + 1)

    def _coarse(self, options: Options, costs: Array) -> Iterator[tuple[int, int, int, int, float]]:
        """Options with costs rounded down to bins; of those alike, the best that no cheaper one reaches."""
        bins = self._binned(costs)
        place = (options.before * (options.after.max() + 1) + options.after) * (options.units.max() + 1) + options.units
        order = np.lexsort((-options.score, bins, place))
        keep = order[rising(place[order], np.unique(options.score, return_inverse=True)[1][order])]
        columns = (options.before, options.after, options.units, bins, options.score)
        yield from zip(*(column[keep].tolist() for column in columns), strict=True)  # type: ignore[misc]
