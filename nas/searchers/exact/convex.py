"""The optimum of a score that is a convex function of sums over parts: bounds by planes, box by box.

A convex function lies, inside a box of intervals for its sums, below the plane that lies on or above it at the corners. Such
a plane is a sum over parts, whose optimum the bounds and labels of exact search find. Boxes that fall below the best
that is known go. A box is closed by that, or by looking at all members that its plane does not exclude, or it is halved.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np

from nas.scorers.formula import Formula
from nas.searchers.exact.chords import LogScore
from nas.searchers.exact.effort import Effort
from nas.searchers.exact.labels import LabelSearch, Relaxation, TooManyLabels
from nas.searchers.exact.necks import NeckScore
from nas.searchers.exact.optimum import Optimum, widths
from nas.searchers.exact.parts import ChainProblem, Integers, Mask, Parts, is_convex, logs_of, pyramids
from nas.searchers.problem import Array

#: Labels after one part that a look at all members of a box may take.
_LABELS = 200_000
#: Share of a score that planes may promise too much for such a look.
_CLOSE = 5e-3
#: Labels of a search for better networks count as equal within this share of what the planes may promise too much.
_COARSE = 1e-3


class Box(Protocol):
    """Intervals of the sums of gains up to the ends of the scored levels, or of what those sums are made of."""

    @property
    def slopes(self) -> Array:
        """Of the plane above the score, by sum; gains that the score falls with count negative."""

    @property
    def base(self) -> Array | float:
        """What the plane comes to where all sums are zero, by the state after the last block or for all."""

    @property
    def excess(self) -> float:
        """About the most that the plane promises too much."""

    def below(self, score: float) -> Box | None:
        """The part in which a member may score more than `score`; None if there is none."""

    def halves(self) -> Iterator[Box]:
        """Two boxes, split where the plane promises too much the most."""


class ConvexScore(Protocol):
    """A score that is a convex function of sums of what parts are scored by, which it rises with."""

    @property
    def scored(self) -> list[int]:
        """Levels up to whose ends it is summed."""

    def box(self, least: Array, most: Array, channels: Integers, reached: Mask) -> Box | None:
        """The box of all members by the least and the most of every sum (-inf: nothing fits), and the widths C3, C4, C5
        (n, 3) by the state after the last block, of those that are reached; None where nothing fits."""

    def scores(self, sums: Array, channels: Integers) -> Array:
        """(n,) scores of networks by their sums (n, levels) and their widths C3, C4, C5 (n, 3)."""


def convex_score(problem: ChainProblem) -> ConvexScore | None:
    """The score of a problem as a convex function of sums; None where it is a sum itself."""
    formula: Formula | None = problem.objective.formula
    if (logs := logs_of(formula)) is not None:
        return LogScore(logs)
    if formula is None or not is_convex(formula):
        return None
    return NeckScore(formula, [problem.levels[index + 1] for index in problem.template.out_blocks])


def counted(problem: ChainProblem, convex: ConvexScore) -> Array:
    """Which parts are in which sum: (stem, blocks and what is behind them, sums)."""
    ends = [*problem.levels[: problem.blocks + 1], problem.levels[-1]]
    return np.array([[end <= level for level in convex.scored] for end in ends], dtype=np.float64)


class ConvexOptimum(Optimum):
    """Searches the best network within all limits as `Optimum` does, for a convex function of sums."""

    def __init__(
        self, problem: ChainProblem, parts: Parts, bins: int, effort: Effort, start: Integers, convex: ConvexScore
    ) -> None:
        super().__init__(problem, parts, bins, effort, start)
        self._convex, self._sums = convex, len(convex.scored)
        self._counted = counted(problem, convex)
        self._channels, _, self._reached = pyramids(problem, parts.taps, parts.widths)
        self._bare = self._with_sums(parts)
        count = len(parts.limits)
        self._alone = [np.append(row, np.zeros(self._sums)) for row in (np.eye(count) if count else np.zeros((1, 0)))]

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
        least, most = np.array([self._ends(number) for number in range(self._sums)]).T
        return self._convex.box(least, most, self._channels, self._reached)

    def _ends(self, number: int) -> tuple[float, float]:
        """The least of the sum of what parts are scored by, and the most within the limits (-inf: nothing fits)."""
        counted = self._counted[:, number]
        parts = self._weighted(counted, 0.0)
        most = min(self._relaxation(parts, alone).upper() for alone in self._alone)
        options = [*(options.score for options in self._bare.options), self._bare.behind_score]
        least = sum(float(score.min()) * share for score, share in zip(options, counted, strict=True))
        return least, most

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
        scores = self._convex.scores(-last.costs[:, -self._sums :], self._channels[last.state])
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
        """The parts with what they are scored by, less of which is dearer, as further costs in every level's sum, which no
        limit holds down."""

        def widened(costs: Array, score: Array, part: int) -> Array:
            return np.concatenate([costs, -score[:, None] * self._counted[part]], axis=1)

        options = [
            replace(options, costs=widened(options.costs, options.score, part))
            for part, options in enumerate(parts.options)
        ]
        behind = widened(parts.behind_costs, parts.behind_score, len(options))
        limits = np.append(parts.limits, np.ones(self._sums))
        return replace(parts, options=options, behind_costs=behind, limits=limits)

    def _weighted(self, factors: Array, base: Array | float) -> Parts:
        """The parts with their scores multiplied by part, and a base."""
        options = [
            replace(options, score=options.score * factor)
            for options, factor in zip(self._bare.options, factors[:-1], strict=True)
        ]
        return replace(self._bare, options=options, behind_score=self._bare.behind_score * factors[-1] + base)
