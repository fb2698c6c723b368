"""Exact search: the provably best backbone of a chain under additive limits, its front, and what comes close.

A dynamic programme with dominance under bounds that are computed from the back (`labels`), run until bound and result
meet (`optimum`). Where labels, memory or steps run out first, the result says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from nas.errors import InternalError
from nas.options import Positive, Share
from nas.searchers.base import Candidate, Certificate, admitted
from nas.searchers.exact.convex import ConvexOptimum, convex_score
from nas.searchers.exact.effort import STEPS, Effort, Halt
from nas.searchers.exact.groups import MOST_BOXES, groups_of
from nas.searchers.exact.labels import LabelSearch, Relaxation, TooManyLabels
from nas.searchers.exact.optimum import DELTA, Optimum, own_limit
from nas.searchers.exact.parts import ChainProblem, Integers, chain_of, is_convex, linear_score
from nas.searchers.pareto import best_first
from nas.spec import digest

#: The widest share of the optimum that is looked through at once for networks of other shapes: wider ones follow in
#: doublings while too few are found, narrower ones in halvings if labels are too many.
_NEAR_SHARE = 0.01
_HALVINGS = 7
#: Bins of the bounds that are told where nothing better is known, one after the other.
_OPEN_BINS = (8, 128)
#: Labels, and steps (a quarter of a minute), that this may take.
_NEAR_LABELS, _NEAR_STEPS = 500_000, 300_000_000


@dataclass(frozen=True)
class ExactResult:
    """What was found, and what of it is proven.

    best: None if nothing was found, which is proven too unless `unproven` says why not; upper: no member scores more;
    certificate: the proof that `best` is the optimum, None without. front: of score against the budgeted metrics, its
    best at every cost but for `open_levels` of the costs that were tried (several limits: good, but not proven). near:
    the best of different shapes within `share` of the best score. interrupted: the user asked to stop.
    """

    best: Candidate | None
    front: list[Candidate]
    near: list[Candidate]
    certificate: Certificate | None
    upper: float = -np.inf
    unproven: str = ""
    open_levels: int = 0
    share: float = 0.0
    interrupted: bool = False

    @property
    def impossible(self) -> bool:
        """Whether it is proven that nothing fits the limits."""
        return self.best is None and not self.unproven


@dataclass
class _Beside:
    """Gene rows that are shown beside the optimum, filled step by step so that an interruption keeps what is there."""

    front: list[Integers] = field(default_factory=list)
    open_levels: int = 0
    near: list[Candidate] = field(default_factory=list)
    share: float = 0.0
    _near_rows: Integers | None = None

    def add_front(self, optimum: Optimum, levels: int) -> None:
        """The best networks at `levels` costs up to the limit, and at every number of units if layers are limited."""
        problem, parts, relaxation = optimum.problem, optimum.parts, optimum.tightest
        assert relaxation is not None
        least, several = len(parts.widths) - 1, len(parts.limits) > 1
        limited = problem.counts_layers and "layers" in problem.budget.metrics
        for units in range(least, parts.units + 1) if limited else (parts.units,):
            finite = np.flatnonzero(np.isfinite(relaxation.bounds[-1][0, units]))
            if len(finite) == 0:
                continue
            count = max(2, levels // (parts.units - least + 1)) if limited else levels
            count = max(2, count // 6) if several else count
            first = max(finite[0], 1) / relaxation.bins
            for limit in np.linspace(first, 1.0, count if len(parts.limits) else 1):
                reach = optimum.reach(relaxation, float(limit), units)
                self.front.append(reach.rows[:20])
                self.open_levels += not reach.complete

    def add_near(self, optimum: Optimum, share: float, count: int) -> None:
        """The best networks of different shape within `share` of the best score, as far as labels and steps suffice.

        The shares that are looked through are the same for every `share` of a hundredth and more, so that a wider one
        adds to what a narrower one finds.
        """
        effort, wide = optimum.effort, min(share, _NEAR_SHARE)
        try:
            with effort.at_most(_NEAR_STEPS):
                for _ in range(_HALVINGS if count else 0):
                    try:
                        self._look_near(optimum, wide, wide, count)
                        break
                    except TooManyLabels:
                        wide /= 2
                while self.share == wide < share and len(self.near) < count:
                    wide *= 2
                    self._look_near(optimum, wide, share, count)
        except TooManyLabels:
            return
        except Halt as halt:
            if halt.interrupted or effort.spent:
                raise

    def add_found(self, optimum: ConvexOptimum, share: float, count: int) -> None:
        """The best networks of different shape among those that were looked at, within `share` of the best score."""
        if optimum.best is None or not count:
            return
        problem, rows = optimum.problem, np.unique(optimum.found, axis=0)
        scores = problem.evaluate(rows).score
        rows = rows[np.argsort(-scores, kind="stable")][
            : np.count_nonzero(scores >= optimum.score - share * abs(optimum.score))
        ]
        found = candidates_of(problem, rows[_different(problem, rows, 4 * count)])
        self.near = [one for one in found if problem.budget.admits(one.metrics)][:count]
        self.share = share

    def _look_near(self, optimum: Optimum, wide: float, share: float, count: int) -> None:
        """Add networks within `share` from the labels within `wide` of the best score; raises TooManyLabels and Halt."""
        relaxation, problem, score = optimum.tightest, optimum.problem, optimum.score
        assert relaxation is not None
        search = LabelSearch(
            optimum.parts, optimum.together(), relaxation, shapes=True, most=_NEAR_LABELS, effort=optimum.effort
        )
        stages = search.run(3e-4 * abs(score), score - wide * abs(score))
        last = stages[-1]
        order = np.lexsort((relaxation.cost_of(last.costs), -last.score))
        heads = order[np.sort(np.unique(last.shape[order], return_index=True)[1])]
        # Wider shares in the order of their scores: what a narrower one would have added comes first.
        chosen = np.concatenate([heads, order[:4000]])
        chosen = chosen[last.score[chosen] >= score - share * abs(score)]
        if self._near_rows is not None:
            chosen = chosen[np.argsort(-last.score[chosen], kind="stable")]
        rows = search.genes(stages, chosen)
        if self._near_rows is not None:
            rows = np.concatenate([self._near_rows, rows])
        self._near_rows = rows[_different(problem, rows, 4 * count)]
        self.near = [c for c in candidates_of(problem, self._near_rows) if problem.budget.admits(c.metrics)][:count]
        self.share = min(wide, share)


def exact_search(
    problem: ChainProblem,
    levels: Annotated[int, Ge(1), Le(10_000)] = 48,
    share: Share = 0.01,
    near: Annotated[int, Ge(0), Le(10_000)] = 12,
    bins: Annotated[int, Ge(2), Le(100_000)] = 256,
    steps: Annotated[int, Ge(1)] = STEPS,
    seconds: Positive | None = None,
    on_step: Callable[[str], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    start: Integers | None = None,
) -> ExactResult:
    """The best member of the problem's space within its budget, with a proof where steps and memory suffice for it.

    levels: costs at which the front is computed; near, share: how many networks of different shape are returned, within
    which share of the optimum; bins: resolution of the first bounds (speed only, never the result); steps: after how
    much work to end without a proof, one worth some 50 ns; seconds: after how much CPU time of this process, which makes
    the result of an unfinished search one of the machine; start: gene rows to begin with, whose best inside the budget is
    beaten or proven. `stop` is asked now and then; what is found until then is returned.
    Raises UserError for scores or limits that are not sums over blocks, and for spaces with too many blocks.
    """
    began, effort = time.monotonic(), Effort(steps, on_step, stop, np.inf if seconds is None else seconds)
    optimum: Optimum | None = None
    beside, reason, interrupted = _Beside(), "too many labels are needed", False
    begin = np.zeros((0, problem.width), dtype=np.int64) if start is None else start
    groups = groups_of(problem, effort, begin)
    try:
        if groups is not None:
            groups.solve()
            if groups.dropped > -np.inf:
                reason = f"more than {MOST_BOXES:,} groups of blocks of one position could hold the optimum"
            if groups.done and not len(groups.best):
                return ExactResult(None, [], [], None, groups.upper, "" if groups.upper == -np.inf else reason)
            problem, begin = groups.left, groups.best
        effort.tell("pricing every block")
        parts = chain_of(problem, effort)
        if (convex := convex_score(problem)) is not None:
            optimum = ConvexOptimum(problem, parts, bins, effort, begin, convex)
        else:
            optimum = Optimum(problem, parts, bins, effort, begin)
        effort.tell("proving the optimum")
        optimum.solve()
        if groups is not None:  # what else is near was dropped with the rest
            beside.open_levels = levels
        elif isinstance(optimum, ConvexOptimum):
            beside.add_found(optimum, share, near)
        elif optimum.best is not None:
            effort.tell("front")
            beside.add_front(optimum, levels)
            effort.tell("networks of other shapes")
            beside.add_near(optimum, share, near)
    except Halt as halt:
        reason, interrupted = str(halt), halt.interrupted
    if groups is not None and optimum is not None:
        optimum.upper = min(max(optimum.upper, groups.dropped), groups.upper)
    if optimum is None:
        known = candidates_of(problem, (begin if groups is None else groups.best)[:1])
        best = known[0] if known and problem.budget.admits(known[0].metrics) else None
        if groups is not None:
            upper = groups.upper
        else:
            upper = np.inf if interrupted or effort.spent else _open_bound(problem, effort)
        return ExactResult(best, known, [], None, min(upper, own_limit(problem)), reason, 0, 0.0, interrupted)
    optimum.upper = min(optimum.upper, optimum.ceiling)
    if optimum.best is None:
        return ExactResult(None, [], [], None, optimum.upper, "" if optimum.proven else reason, 0, 0.0, interrupted)
    best = candidates_of(problem, optimum.best[None])[0]
    upper = max(_above(optimum), best.score)  # alone a row may sum up to another last digit than among others
    certificate = None
    if optimum.proven:
        weights = () if optimum.tightest is None else tuple(np.round(optimum.tightest.weights, 6).tolist())
        seconds, size = time.monotonic() - began, problem.size()
        certificate = Certificate(best.score, upper, optimum.rounding, size, optimum.parts.resources, weights, seconds)
    rows = np.unique(np.concatenate([optimum.best[None], optimum.found, *beside.front]), axis=0)
    front = [best, *(c for c in _front(problem, rows) if c.digest != best.digest)]
    return ExactResult(
        best, front, beside.near, certificate, upper, "" if certificate else reason, beside.open_levels,
        beside.share, interrupted,
    )  # fmt: skip


def _open_bound(problem: ChainProblem, effort: Effort) -> float:
    """A bound on every score where the states of the whole chain are too many: the neck and head behind it cost nothing.

    Infinite for counts, whose score grows with them, and where even that takes too much; a coarse bound comes first, so
    that one remains where the effort ends.
    """
    upper = np.inf
    formula = problem.objective.formula
    if linear_score(formula, len(set(problem.levels))).metric or is_convex(formula):
        return upper
    try:
        effort.tell("a bound without what stands behind the backbone")
        parts = chain_of(problem, effort, closed=False)
        count = len(parts.limits)
        alone = np.eye(count) if count else [np.zeros(0)]
        for bins in _OPEN_BINS:
            bound = min(Relaxation(parts, weights, bins, effort).upper() for weights in alone)
            upper = min(upper, bound + len(parts.options) * DELTA * max(abs(bound), 1.0))  # other orders of the sums
    except Halt:
        pass
    return upper


def _above(optimum: Optimum) -> float:
    """The bound, lifted to the best score by what rounding explains; raises InternalError for a bound farther below."""
    if optimum.upper < optimum.score - optimum.rounding:
        raise InternalError(f"a network scores {optimum.score!r}, but no more than {optimum.upper!r} seemed possible")
    return max(optimum.upper, optimum.score)


def _different(problem: ChainProblem, rows: Integers, count: int) -> list[int]:
    """Greedy choice of rows that differ: in a depth, or by a tenth and more in widths on average."""
    chosen: list[int] = []
    depths, widths = problem.shapes(rows)
    for row in range(len(rows)):
        if all(
            (depths[row] != depths[other]).any() or np.abs(widths[row] - widths[other]).mean() > 0.1 for other in chosen
        ):
            chosen.append(row)
        if len(chosen) == count:
            break
    return chosen


def candidates_of(problem: ChainProblem, rows: Integers) -> list[Candidate]:
    """The members that gene rows stand for, evaluated."""
    if len(rows) == 0:
        return []
    evaluation = problem.evaluate(rows)
    result = []
    for row, score, metrics in zip(rows, evaluation.score.tolist(), evaluation.metrics.tolist(), strict=True):
        spec = problem.spec(row)
        values = {"score": score} | dict(zip(problem.metrics, metrics, strict=True))
        result.append(Candidate(spec, digest(spec), values))
    return result


def _front(problem: ChainProblem, rows: Integers) -> list[Candidate]:
    """Those of the rows inside the budget that no other beats, the best first."""
    evaluation = problem.evaluate(rows)
    columns = [problem.metrics.index(metric) for metric in problem.budget.metrics]
    costs, inside = evaluation.metrics[:, columns], admitted(problem.budget, problem.metrics, evaluation)
    return candidates_of(problem, rows[inside][best_first(evaluation.score[inside], costs[inside])])
