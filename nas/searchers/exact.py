"""Exact search: the provably best backbone of a TinyNAS space under additive limits, its front, and what comes close.

A dynamic programme with dominance (`exact_labels`) under bounds that are computed from the back. Several budgeted sums
become one weighted sum, whose optimum bounds theirs (a surrogate relaxation); the weights are moved until the bound is
tight, and what is left between bound and result is enumerated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from nas.options import Share
from nas.searchers.candidate import Candidate
from nas.searchers.certificate import Certificate
from nas.searchers.exact_bounds import Relaxation
from nas.searchers.exact_labels import LabelSearch
from nas.searchers.exact_parts import Integers, Parts, chain_of
from nas.searchers.gene_problem import GeneProblem
from nas.searchers.objective import Array
from nas.searchers.pareto import nondominated
from nas.spec import digest

#: Relative size of the score buckets within which labels count as equal.
_DELTA = 1e-9
#: First relative width below the upper bound that is searched; tripled until something is found.
_FIRST_GAP = 2e-4
_ROUNDS = 7


@dataclass(frozen=True)
class ExactResult:
    """The optimum (None if nothing fits the limits), the front of score against the budgeted metrics, the best of
    different shapes within a share of the optimum, and the certificate."""

    best: Candidate | None
    front: list[Candidate]
    near: list[Candidate]
    certificate: Certificate | None


class ExactSearch:
    """The stages of one exact search; `exact_search` runs them all."""

    def __init__(self, problem: GeneProblem, bins: int) -> None:
        self.problem, self.bins = problem, bins
        self.parts: Parts = chain_of(problem)
        self.found = np.zeros((0, problem.codec.width), dtype=np.int64)
        self.alone: list[Relaxation] = []

    def optimum(
        self, relaxation: Relaxation, limit: float = 1.0, units: int | None = None
    ) -> tuple[float, Integers | None]:
        """Upper bound and gene rows (best first) of the best networks of one relaxation; -inf and None if none fits."""
        upper = relaxation.upper(limit, units)
        if not np.isfinite(upper):
            return upper, None
        scale = max(abs(upper), 1.0)
        search = LabelSearch(self.parts, [relaxation], relaxation, limit, units)
        width, fine = _FIRST_GAP * scale, _DELTA * scale
        while width < 12 * scale:
            delta = fine if width <= 0.01 * scale else width / 200
            stages = search.run(delta, upper - width)
            if stages is None:
                delta = width / 20
                stages = search.run(delta, upper - width)
            if stages is not None and len(stages[-1]):
                best = float(stages[-1].score.max())
                if delta > fine:
                    finer = search.run(fine, best - 1e-9 * scale)
                    delta, stages = (delta, stages) if finer is None else (fine, finer)
                last = stages[-1]
                order = np.lexsort((relaxation.cost_of(last.costs), -last.score))
                bound = float(last.score.max()) + len(stages) * delta
                return min(bound, upper), search.genes(stages, order[:200])
            width *= 3
        return -np.inf, None

    # ------------------------------------------------------------------ several resources

    def solve(self) -> tuple[Relaxation, float, Integers | None]:
        """The tightest relaxation, an upper bound, and the best genes that keep every limit (None if there are none)."""
        count = len(self.parts.limits)
        tightest, upper, best, score = None, np.inf, None, -np.inf
        for weights in self._weightings(count):
            relaxation = Relaxation(self.parts, weights, self.bins if count < 2 else self.bins // 2)
            bound, rows = self.optimum(relaxation)
            if rows is None:
                return relaxation, -np.inf, None
            if tightest is None or bound < upper:
                tightest, upper = relaxation, bound
            if weights.max(initial=1.0) == 1.0:
                self.alone.append(relaxation)
            row, value = self._best_inside(rows)
            if row is not None and value > score:
                best, score = row, value
            self._surplus = self._use(rows[:1])[0] - 1.0
            if count < 2 or (self._surplus <= 1e-12).all():
                return relaxation, bound, best
        assert tightest is not None
        search = LabelSearch(self.parts, self.together(tightest), None)
        return tightest, *self._closed(search, upper, best, score)

    def together(self, relaxation: Relaxation) -> list[Relaxation]:
        """A relaxation and every resource alone: what keeps them all keeps every limit."""
        return [relaxation, *(other for other in self.alone if other is not relaxation)]

    def _weightings(self, count: int) -> Iterator[Array]:
        """One resource after the other alone, then weights moved towards what is exceeded (bisection for two)."""
        yield from np.eye(count) if count else [np.zeros(0)]
        low, high, weights = 0.0, 1.0, np.full(count, 1 / max(count, 1))
        for turn in range(_ROUNDS):
            yield weights
            if count == 2:
                low, high = (weights[0], high) if self._surplus[0] > self._surplus[1] else (low, weights[0])
                weights = np.array([(low + high) / 2, 1 - (low + high) / 2])
            else:
                weights = weights * np.exp(8.0 / (1 + turn) * self._surplus)
                weights = weights / weights.sum()

    def _closed(
        self, search: LabelSearch, upper: float, best: Integers | None, score: float
    ) -> tuple[float, Integers | None]:
        """Upper bound and best network once what lies between them has been enumerated, as far as that is possible."""
        scale = max(abs(upper), 1.0)
        width = _FIRST_GAP * scale
        while width < 12 * scale:
            stages = search.run(0.0, max(score, upper - width))
            if stages is None:
                return upper, best
            if len(stages[-1]):
                row, value = self._best_inside(search.genes(stages, np.arange(len(stages[-1]))))
                if row is not None and value > score:
                    best, score = row, value
            if score >= upper - width:
                return min(upper, score + _DELTA * scale), best
            width *= 3
        return upper, best

    def _use(self, rows: Integers) -> Array:
        """Shares of the limits (n, resources) that networks use."""
        metrics = self.problem.evaluate(rows).metrics
        columns = [self.problem.metrics.index(metric) for metric in self.parts.resources]
        return metrics[:, columns] / self.parts.limits

    def _best_inside(self, rows: Integers) -> tuple[Integers | None, float]:
        """The best of the rows that keep every limit, and its score."""
        self.found = np.concatenate([self.found, rows[:200]])
        evaluation = self.problem.evaluate(rows)
        inside = np.ones(len(rows), dtype=bool)
        for metric, limit in self.problem.budget.limits:
            inside &= evaluation.metrics[:, self.problem.metrics.index(metric)] <= limit
        if not inside.any():
            return None, -np.inf
        row = int(np.where(inside, evaluation.score, -np.inf).argmax())
        return rows[row], float(evaluation.score[row])

    # ------------------------------------------------------------------ front and neighbours

    def front(self, search: Relaxation, levels: int) -> Integers:
        """Gene rows of the best networks at `levels` costs up to the limit, and at every number of units if limited.

        With several resources these are few, and the front that they give is good but not proven.
        """
        rows = []
        least = len(self.parts.widths) - 1
        limited = "layers" in self.problem.budget.metrics
        for units in range(least, self.parts.units + 1) if limited else (self.parts.units,):
            finite = np.flatnonzero(np.isfinite(search.bounds[-1][0, units]))
            if len(finite) == 0:
                continue
            count = max(2, levels // (self.parts.units - least + 1)) if limited else levels
            count = count if len(self.parts.limits) < 2 else max(2, count // 6)
            for limit in np.linspace(max(finite[0], 1) / search.bins, 1.0, count if len(self.parts.limits) else 1):
                row = self.optimum(search, float(limit), units)[1]
                if row is not None:
                    rows.append(row[:20])
        return np.concatenate(rows) if rows else self.found[:0]

    def near(self, relaxation: Relaxation, best: float, share: float, count: int) -> Integers:
        """Gene rows of the best networks of different shape within `share` of the best score."""
        search = LabelSearch(self.parts, self.together(relaxation), relaxation, shapes=True)
        stages = None
        for part in (1.0, 0.5, 0.25):
            stages = search.run(3e-4 * abs(best), best - part * share * abs(best))
            if stages is not None:
                break
        if stages is None:
            return self.found[:0]
        last = stages[-1]
        order = np.lexsort((relaxation.cost_of(last.costs), -last.score))
        heads = np.unique(last.shape[order], return_index=True)[1]
        order = np.concatenate([order[np.sort(heads)], order[:4000]])
        rows = search.genes(stages, order)
        return rows[_different(rows, self.problem.codec.blocks, count)]


def _different(rows: Integers, blocks: int, count: int) -> list[int]:
    """Greedy choice of rows that differ: in a depth, or by a tenth and more in widths on average."""
    chosen: list[int] = []
    depths, widths = rows[:, 4::4], np.log(np.concatenate([rows[:, 1::4], rows[:, 2::4]], axis=1))
    for row in range(len(rows)):
        if all(
            (depths[row] != depths[other]).any() or np.abs(widths[row] - widths[other]).mean() > 0.1 for other in chosen
        ):
            chosen.append(row)
        if len(chosen) == count:
            break
    return chosen


def exact_search(
    problem: GeneProblem,
    levels: Annotated[int, Ge(1), Le(10_000)] = 48,
    share: Share = 0.01,
    near: Annotated[int, Ge(0), Le(10_000)] = 12,
    bins: Annotated[int, Ge(2), Le(100_000)] = 256,
    on_step: Callable[[str], None] | None = None,
) -> ExactResult:
    """The best member of the problem's space within its budget, with a proof.

    levels: costs at which the front is computed; near, share: how many networks of different shape are returned, within
    which share of the optimum; bins: resolution of the bounds (speed only, never the result).
    Raises UserError for scores or limits that are not sums over blocks, and for spaces with too many blocks.
    """
    start = time.monotonic()
    tell = on_step or (lambda text: None)
    tell("pricing every block")
    exact = ExactSearch(problem, bins)
    tell("searching")
    search, upper, genes = exact.solve()
    if genes is None:
        return ExactResult(None, [], [], None)
    best = _candidates(problem, genes[None])[0]
    tell("front")
    rows = np.concatenate([genes[None], exact.found, exact.front(search, levels)])
    front = _front(problem, np.unique(rows, axis=0))
    tell("networks of other shapes")
    others = exact.near(search, best.score, share, 4 * near)
    close = [c for c in _candidates(problem, others) if problem.budget.admits(c.metrics)][:near]
    certificate = Certificate(
        best.score,
        max(upper, best.score),
        len(exact.parts.options) * _DELTA * max(abs(upper), 1.0),
        problem.space.size(),
        exact.parts.resources,
        tuple(np.round(search.weights, 6).tolist()),
        time.monotonic() - start,
    )
    front = [best, *(c for c in front if c.digest != best.digest)]
    return ExactResult(best, front, close, certificate)


def _candidates(problem: GeneProblem, rows: Integers) -> list[Candidate]:
    if len(rows) == 0:
        return []
    evaluation = problem.evaluate(rows)
    result = []
    for row, score, metrics in zip(rows, evaluation.score.tolist(), evaluation.metrics.tolist(), strict=True):
        spec = problem.spec(row)
        values = {"score": score} | dict(zip(problem.metrics, metrics, strict=True))
        result.append(Candidate(spec, digest(spec), values))
    return result


def _front(problem: GeneProblem, rows: Integers) -> list[Candidate]:
    """Those of the rows inside the budget that no other beats, the best first."""
    evaluation = problem.evaluate(rows)
    columns = [problem.metrics.index(metric) for metric in problem.budget.metrics]
    costs = evaluation.metrics[:, columns]
    inside = (costs <= np.array([limit for _, limit in problem.budget.limits])).all(axis=1)
    keep = np.flatnonzero(inside)[nondominated(np.column_stack([-evaluation.score, costs])[inside])]
    keep = keep[np.argsort(-evaluation.score[keep], kind="stable")]
    return _candidates(problem, rows[keep])
