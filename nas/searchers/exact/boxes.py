"""The optimum of a score that is minus a sum of logarithms of sums, as `effective_rank` is: bounds by chords, box by box.

-ln is convex: between two points it lies below the chord through them, beyond them above. In a box, an interval for
the sum at every level's end, chords therefore bound the score by a sum over parts, whose optimum the bounds and labels of
exact search find. Members outside the box score more than its chords say, so that boxes without the optimum soon fall below
the best that is known. A box is closed by that, or by looking at all members that its chords do not exclude, or it
is halved.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.searchers.exact.effort import Effort
from nas.searchers.exact.labels import LabelSearch, Relaxation, TooManyLabels
from nas.searchers.exact.optimum import Optimum, widths
from nas.searchers.exact.parts import ChainProblem, Integers, Parts
from nas.searchers.problem import Array

#: Labels after one part that a look at all members of a box may take.
_LABELS = 200_000
#: Share of a score that chords may promise too much for such a look.
_CLOSE = 5e-3
#: Labels of a search for better networks count as equal within this share of what the chords may promise too much.
_COARSE = 1e-3
#: Room for the rounding of edges.
_HAIR = 1e-12


@dataclass(frozen=True)
class Box:
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

    def below(self, score: float) -> Box | None:
        """The part in which a member may score more than `score`; None if there is none."""
        low = np.maximum.accumulate(self.low)  # sums grow from level to level
        most = -self.weights * np.log(low)
        with np.errstate(over="ignore"):
            reach = np.exp((most.sum() - most - score) / self.weights) * (1 + _HAIR)
        high = np.minimum.accumulate(np.minimum(self.high, reach)[::-1])[::-1]
        return replace(self, low=low, high=high) if (low <= high).all() else None

    def halves(self) -> Iterator[Box]:
        """Two boxes, split where the chords promise too much the most."""
        widest = int((self.weights * np.log(self.high / self.low) ** 2).argmax())
        middle = np.sqrt(self.low[widest] * self.high[widest])
        for edge in ("low", "high"):
            values = getattr(self, edge).copy()
            values[widest] = middle
            yield replace(self, **{edge: values})


class BoxedOptimum(Optimum):
    """Searches the best network within all limits as `Optimum` does, for a score of logarithms.

    parts: scored by minus their gains; weights: by level, of the logarithms of the gains up to its end, none negative.
    """

    def __init__(
        self, problem: ChainProblem, parts: Parts, bins: int, effort: Effort, start: Integers, weights: Sequence[float]
    ) -> None:
        super().__init__(problem, parts, bins, effort, start)
        self._scored = [level for level, weight in enumerate(weights) if weight]
        self._logs = np.array([weights[level] for level in self._scored])
        ends = [*problem.levels[: len(parts.options)], problem.levels[-1]]  # of the parts, and of what is behind them
        #: Which parts' gains are in which level's sum: (parts and what is behind, scored levels).
        self._counted = np.array([[end <= level for level in self._scored] for end in ends], dtype=np.float64)
        self._bare = self._with_sums(parts)
        count = len(parts.limits)
        self._alone = [
            np.append(row, np.zeros(len(self._scored))) for row in (np.eye(count) if count else np.zeros((1, 0)))
        ]

    def solve(self) -> None:
        """Bring `best` and `upper` together, as far as labels and steps allow."""
        first = self._whole()
        if first is None:
            self.upper = -np.inf
            return
        waiting: list[tuple[float, int, Box]] = [(-np.inf, 0, first)]
        number = 0
        while waiting:
            self.upper = max(-waiting[0][0], self.score)
            if self.best is not None and self.proven:
                return
            upper, _, box = heapq.heappop(waiting)
            self.effort.tell(f"a box of {len(waiting) + 1} that are open")
            part = box.below(self.score)
            bound = -np.inf if part is None else self._look(part, -upper)
            if part is None or bound <= self.score:
                continue
            for half in part.halves():
                number += 1
                heapq.heappush(waiting, (-bound, number, half))
        self.upper = self.score

    def _whole(self) -> Box | None:
        """The box of all members within the limits; None if there is none."""
        low, high = [], []
        options = [*(options.score for options in self._bare.options), self._bare.behind_score]
        for number in range(len(self._scored)):
            counted = self._counted[:, number]
            parts = self._weighted(counted, 0.0)
            least = -min(self._relaxation(parts, alone).upper() for alone in self._alone)
            if least == np.inf:
                return None
            low.append(least)
            high.append(sum(float((-score).max()) * share for score, share in zip(options, counted, strict=True)))
        return Box(np.array(low), np.maximum(high, low), self._logs)

    def _look(self, box: Box, upper: float) -> float:
        """A bound on what members inside the box score, -inf once all that matter were looked at; better ones are taken."""
        self.parts = self._weighted(self._counted @ box.slopes, box.base)
        relaxations = [self._relaxation(self.parts, alone) for alone in self._alone]
        tightest = min(relaxations, key=Relaxation.upper)
        bound = min(upper, tightest.upper())
        if bound <= self.score:
            return bound
        if self.upper == np.inf:  # the first box is that of all members
            self.upper = bound
        scale = max(abs(bound), 1.0)
        if box.excess > _CLOSE * scale:
            return self._better(box, tightest, bound)
        try:
            search = LabelSearch(self.parts, relaxations, None, most=_LABELS, effort=self.effort)
            stages = search.run(0.0, self.score)
        except TooManyLabels:
            return self._better(box, tightest, bound)
        last = stages[-1]
        sums = last.costs[:, len(last.costs.T) - len(self._scored) :]
        scores = -(np.log(sums) * self._logs).sum(axis=1)
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > self.score - self.rounding]
        self.offer(search.genes(stages, order))
        return -np.inf

    def _better(self, box: Box, relaxation: Relaxation, bound: float) -> float:
        """The bound once the best of the chords was looked for coarsely; the networks that this finds are taken."""
        search = LabelSearch(self.parts, [relaxation], relaxation, most=_LABELS, effort=self.effort)
        top, delta = bound, max(_COARSE * box.excess, self.rounding)
        for width in widths(max(abs(top), 1.0)):
            lower = max(self.score, top - width)
            try:
                stages = search.run(delta, lower)
            except TooManyLabels:
                delta = max(delta, box.excess) * 10
                continue
            bound = min(bound, float(stages[-1].score.max(initial=lower)) + len(stages) * delta)
            if len(stages[-1]) or lower == self.score:
                self.offer(self._rows(search, stages))
                break
        return bound

    def _relaxation(self, parts: Parts, weights: Array) -> Relaxation:
        return Relaxation(parts, weights, self._bins, self.effort, self._cells)

    def _with_sums(self, parts: Parts) -> Parts:
        """The parts with the gains in every scored level's sum as further costs, which no limit holds down."""

        def widened(costs: Array, score: Array, part: int) -> Array:
            return np.concatenate([costs, -score[:, None] * self._counted[part]], axis=1)

        options = [
            replace(options, costs=widened(options.costs, options.score, part))
            for part, options in enumerate(parts.options)
        ]
        behind = widened(parts.behind_costs, parts.behind_score, len(options))
        limits = np.append(parts.limits, np.ones(len(self._scored)))
        return replace(parts, options=options, behind_costs=behind, limits=limits)

    def _weighted(self, factors: Array, base: float) -> Parts:
        """The parts with their scores multiplied by part, and a base."""
        options = [
            replace(options, score=options.score * factor)
            for options, factor in zip(self._bare.options, factors[:-1], strict=True)
        ]
        return replace(self._bare, options=options, behind_score=self._bare.behind_score * factors[-1] + base)
