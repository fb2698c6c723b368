"""The optimum of a chain under additive limits: bounds, labels between them, and what is proven when either runs out.

Several budgeted sums become one weighted sum, whose optimum bounds theirs (a surrogate relaxation); the weights are
moved until the bound is tight, and what is left between bound and result is enumerated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nas.searchers.base import admitted
from nas.searchers.exact.effort import CELLS, Effort, Halt
from nas.searchers.exact.labels import Labels, LabelSearch, Relaxation, TooManyLabels
from nas.searchers.exact.parts import ChainProblem, Integers, Parts, linear_score
from nas.searchers.problem import Array

#: Relative size of the score buckets within which labels count as equal.
DELTA = 1e-9
#: First relative width below the upper bound that is searched; tripled until something is found.
_FIRST_GAP = 2e-4
#: The widest, behind which everything is searched.
_LAST_GAP = 12.0
#: Bounds of fewer bins are refined before the search below them widens to a percent.
_COARSE = 128
_ROUNDS = 7
#: Rows of genes that are remembered, and that are evaluated at a time.
_KEPT = 200
_AT_A_TIME = 5000


@dataclass(frozen=True)
class Reach:
    """What one relaxation says: no network scores more than `upper` (-inf: none exists), gene rows of its best, best
    first, and whether `upper` is their score but for rounding (`complete`) or labels were too many for that."""

    upper: float
    rows: Integers
    complete: bool


class Optimum:
    """Searches the best network within all limits, and holds at any moment the best found and the lowest bound.

    start: gene rows that are known; the best of them inside the budget is a bound from below. best, score: genes of the
    best network inside the budget; upper: no member scores more; ceiling: as the budget alone tells; tightest: the
    relaxation that says so; found: gene rows worth a look for a front.
    """

    def __init__(self, problem: ChainProblem, parts: Parts, bins: int, effort: Effort, start: Integers) -> None:
        self.problem, self.parts, self.effort = problem, parts, effort
        self.nothing = np.zeros((0, problem.width), dtype=np.int64)
        self.ceiling = own_limit(problem)
        self.best: Integers | None = None
        self.score, self.upper = -np.inf, np.inf
        self.found, self.alone = self.nothing, list[Relaxation]()
        self.tightest: Relaxation | None = None
        count = len(parts.limits)
        self._surplus = np.zeros(count)
        self._bins = bins if count < 2 else max(bins // 2, 1)
        self._cells = CELLS // (1 if count < 2 else count + 2)
        self.offer(start)

    @property
    def rounding(self) -> float:
        """What score buckets and sums in floating point can hide."""
        size = self.upper if np.isfinite(self.upper) else self.score
        return len(self.parts.options) * DELTA * max(abs(size), 1.0)

    @property
    def proven(self) -> bool:
        """Whether the best is the optimum, or (without a best) nothing fits."""
        if self.best is None or self.upper == np.inf:
            return self.upper == -np.inf
        return self.upper - self.score <= 1.001 * self.rounding

    def offer(self, rows: Integers) -> None:
        """Take the best of gene rows that keeps every limit, if it beats what is known. Rows are sorted, best first."""
        self.found = np.concatenate([self.found, rows[:_KEPT]])
        for first in range(0, len(rows), _AT_A_TIME):
            part = rows[first : first + _AT_A_TIME]
            evaluation = self.problem.evaluate(part)
            inside = admitted(self.problem.budget, self.problem.metrics, evaluation)
            if inside.any():
                row = int(np.where(inside, evaluation.score, -np.inf).argmax())
                if evaluation.score[row] > self.score:
                    self.best, self.score = part[row], float(evaluation.score[row])
                return

    def solve(self) -> None:
        """Bring `best` and `upper` together, as far as labels and memory allow."""
        count = len(self.parts.limits)
        for weights in self._weightings(count):
            relaxation = Relaxation(self.parts, weights, self._bins, self.effort, self._cells)
            if (top := relaxation.upper()) < self.upper:  # what is known should the work end before the labels do
                self.tightest, self.upper = relaxation, top
            reach = self.reach(relaxation, floor=self.score)
            if self.tightest is None or reach.upper < self.upper:
                self.tightest, self.upper = relaxation, reach.upper
            if weights.max(initial=1.0) == 1.0:
                self.alone.append(relaxation)
            self.offer(reach.rows)
            if self.proven:
                break
            if len(reach.rows) == 0:
                if relaxation in self.alone:
                    continue
                break
            self._surplus = self._use(reach.rows[:1])[0] - 1.0
            if count < 2 or (self._surplus <= 1e-12).all():
                break
        if not self.proven and (count > 1 or reach.complete):
            self._close()

    def reach(
        self, relaxation: Relaxation, limit: float = 1.0, units: int | None = None, floor: float = -np.inf
    ) -> Reach:
        """Bound and best networks of one relaxation, of at most this cost and so many units.

        floor: a score that is known to be reached. Labels that are too many are met by finer bounds, then by coarser
        buckets, whose bound is looser.
        """
        top = min(relaxation.upper(limit, units), self.ceiling)
        if not np.isfinite(top):
            return Reach(top, self.nothing, True)
        search = LabelSearch(self.parts, [relaxation], relaxation, limit, units, effort=self.effort)
        scale = max(abs(top), 1.0)
        fine, upper = DELTA * scale, top
        stages, least = None, floor - fine
        for width in widths(scale):
            if width > 0.01 * scale and relaxation.bins < _COARSE and relaxation.refine():
                return self.reach(relaxation, limit, units, floor)
            lower, size = max(top - width, least), min(width, scale)
            for delta in (fine, size / 20) if width <= 0.01 * scale else (size / 200, size / 20, scale):
                try:
                    stages = search.run(delta, lower)
                except TooManyLabels:
                    continue
                upper = min(upper, max(_best(stages), lower) + len(stages) * delta)
                break
            if stages is None and top == self.ceiling:
                raise Halt("networks that nearly use up what is both score and limit are too many to tell apart", False)
            if stages is not None and (len(stages[-1]) or lower == least):
                return self._refined(search, relaxation, stages, delta, max(_best(stages), least), upper)
        return Reach(upper, self.nothing, False)

    def together(self) -> list[Relaxation]:
        """The tightest relaxation and every resource alone: what keeps them all keeps every limit."""
        assert self.tightest is not None
        return [self.tightest, *(other for other in self.alone if other is not self.tightest)]

    # ------------------------------------------------------------------ inside

    def _refined(
        self,
        search: LabelSearch,
        relaxation: Relaxation,
        stages: list[Labels],
        delta: float,
        score: float,
        upper: float,
    ) -> Reach:
        """The optimum of a relaxation once buckets of size `delta` have shown that `score` is reached."""
        fine = DELTA * max(abs(upper), 1.0)
        while delta > fine and score > -np.inf:
            try:
                stages, delta = search.run(fine, score - fine), fine
                upper = min(upper, max(_best(stages), score - fine) + len(stages) * fine)
            except TooManyLabels:
                if not relaxation.refine():
                    upper = min(upper, self._loosely(search, score - fine, fine))
                    break
        if score == -np.inf:
            return Reach(-np.inf, self.nothing, True)
        return Reach(upper, self._rows(search, stages), delta <= fine)

    def _loosely(self, search: LabelSearch, lower: float, fine: float) -> float:
        """The bound that the smallest buckets give whose labels are not too many."""
        for delta in (1e2 * fine, 1e4 * fine, 1e6 * fine):
            try:
                stages = search.run(delta, lower)
            except TooManyLabels:
                continue
            self.offer(self._rows(search, stages))
            return max(_best(stages), lower) + len(stages) * delta
        return np.inf

    def _rows(self, search: LabelSearch, stages: list[Labels]) -> Integers:
        """Gene rows of the best complete labels, the cheaper first of equal ones."""
        last = stages[-1]
        order = np.lexsort((search.relaxations[0].cost_of(last.costs), -last.score))
        return search.genes(stages, order[:_KEPT])

    def _weightings(self, count: int) -> Iterator[Array]:
        """One resource after the other alone, then weights moved towards what is exceeded (bisection for two)."""
        yield from np.eye(count) if count else [np.zeros(0)]
        low, high, weights = 0.0, 1.0, np.full(count, 1 / max(count, 1))
        for turn in range(_ROUNDS if count > 1 else 0):
            yield weights
            if count == 2:
                low, high = (weights[0], high) if self._surplus[0] > self._surplus[1] else (low, weights[0])
                weights = np.array([(low + high) / 2, 1 - (low + high) / 2])
            else:
                power = 8.0 / (1 + turn) * self._surplus
                weights = weights * np.exp(power - power.max())  # what is far too much must not overflow
                weights = weights / weights.sum()

    def _close(self) -> None:
        """Enumerate what lies between bound and best network, as far as that is possible."""
        top, scale = self.upper, max(abs(self.upper), 1.0)
        search = LabelSearch(self.parts, self.together(), None, effort=self.effort)
        for width in widths(scale):
            lower = max(self.score, top - width)
            while True:
                try:
                    stages = search.run(0.0, lower)
                    break
                except TooManyLabels:
                    if not any([relaxation.refine() for relaxation in search.relaxations]):
                        return
            order = np.argsort(-stages[-1].score, kind="stable")
            for first in range(0, len(order), _AT_A_TIME):
                before = self.score
                self.offer(search.genes(stages, order[first : first + _AT_A_TIME]))
                if self.score > before:
                    break
            self.upper = min(self.upper, max(self.score, lower) + DELTA * scale)
            if self.score >= lower:
                return

    def _use(self, rows: Integers) -> Array:
        """Shares of the limits (n, resources) that networks use."""
        metrics = self.problem.evaluate(rows).metrics
        columns = [self.problem.metrics.index(metric) for metric in self.parts.resources]
        values, tops = metrics[:, columns], self.parts.tops
        return np.where(tops > 0, tops - values, values) / self.parts.limits


def own_limit(problem: ChainProblem) -> float:
    """What a score that is a count comes to at most where that count is limited; infinite for all others."""
    linear = linear_score(problem.objective.formula, len(set(problem.levels)))
    limits = [high for name, _, high in problem.budget.ranges if name == linear.metric]
    return linear.factor * min(limits, default=np.inf) if linear.factor > 0 else np.inf


def widths(scale: float) -> Iterator[float]:
    """Distances below a bound, each three times the one before; the last has no end."""
    width = _FIRST_GAP
    while width < _LAST_GAP:
        yield width * scale
        width *= 3
    yield np.inf


def _best(stages: list[Labels]) -> float:
    """The best score of complete labels, -inf if there are none."""
    return float(stages[-1].score.max(initial=-np.inf))
