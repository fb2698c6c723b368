"""Backbone and neck together under a score that sees both: a bound by prices, and the best detector that they lead to.

At a price for what is limited every width of C3, C4 and C5 has its best neck, and what is worth most of all detectors, less
what it costs, is found exactly: no detector within the limits scores more than that and the price of the limits
(Lagrange). The price at which this is the least gives the bound, and the necks that are the best there are searched.
Detectors whose neck is the best at no price may lie between the best found and the bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize_scalar

from nas.errors import UserError
from nas.searchers.base import Candidate, Certificate
from nas.searchers.exact.effort import STEPS, Effort, Halt
from nas.searchers.exact.labels import Relaxation
from nas.searchers.exact.optimum import DELTA, Optimum, own_limit
from nas.searchers.exact.parts import ChainProblem, Parts, Pricing, behind, chain_of
from nas.searchers.exact.search import ExactResult, candidates_of, exact_search
from nas.searchers.problem.giraffe_chain import GiraffeProblem

#: Logarithms of prices: how far apart in the first look, how near the second comes, and the farthest; turns of the second.
_COARSE, _NEARNESS, _WIDEST, _TURNS = 1.5, 0.02, 30.0, 10
#: Share of a bound that another price must gain for a still farther one to be asked for.
_FLAT = 1e-9
#: Prices whose necks are searched, as shares of that of the least bound, and those that follow where nothing is found; steps
#: that each may make under several limits.
_NEAR, _FAR, _STEPS = (1.0, 0.8, 1.25), (0.5, 2.0, 4.0, 16.0, np.inf), 200_000_000
_NO_PRICE = "a detector may be better whose neck is the best at no price of the limits"


def exact_search_of(problem: ChainProblem) -> Callable[..., ExactResult]:
    """The exact search that serves a chain, called with the chain and what `exact_search` takes beside it."""
    return search_with_necks if weighs_necks(problem) else exact_search


def weighs_necks(problem: ChainProblem) -> bool:
    """Whether a chain stands for detectors whose searched neck its score sees."""
    return isinstance(problem, GiraffeProblem) and problem.weighs_necks


def search_with_necks(
    problem: GiraffeProblem,
    bins: int = 64,
    steps: int = STEPS,
    seconds: float | None = None,
    on_step: Callable[[str], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    **beside: object,
) -> ExactResult:
    """The best detector of backbone and neck that was found, and a bound on all; proved where nothing has a price.

    Options as of `exact_search`; no front and no neighbours are looked for (`levels`, `near`, `share` say nothing here, nor
    does `start`: rows have no necks of their own). Raises UserError for a lower limit, and what `exact_search` raises.
    """
    if low := [name for name, least, _ in problem.budget.ranges if least]:
        raise UserError(
            f"exact search of space {problem.name} under a score that sees the neck serves upper limits alone, "
            f"not a least {low[0]}; use evolution"
        )
    began = time.monotonic()
    search = _NeckSearch(problem, bins, Effort(steps, on_step, stop, np.inf if seconds is None else seconds))
    reason, interrupted = _NO_PRICE, False
    try:
        search.solve()
    except Halt as halt:
        reason, interrupted = str(halt), halt.interrupted
    best, upper = search.best, search.upper
    if best is None:
        return ExactResult(None, [], [], None, upper, "" if upper == -np.inf else reason, 0, 0.0, interrupted)
    certificate, upper = None, max(upper, best.score)
    if search.proven:
        size, took = problem.size(), time.monotonic() - began
        certificate = Certificate(best.score, upper, search.rounding, size, search.parts.resources, (), took)
    return ExactResult(best, [best], [], certificate, upper, "" if certificate else reason, 0, 0.0, interrupted)


class _NeckSearch:
    """Looks for the price of the least bound, and for good detectors there; best, upper: the best found and the bound."""

    def __init__(self, problem: GiraffeProblem, bins: int, effort: Effort) -> None:
        self.problem, self._bins, self.effort = problem, bins, effort
        self.best: Candidate | None = None
        self.upper = np.inf

    def solve(self) -> None:
        """Bring bound and best as near as prices can."""
        self.effort.tell("pricing every block")
        self.parts = chain_of(self.problem.at(np.inf), self.effort)
        self._count = len(self.parts.limits)
        alone = (Relaxation(self.parts, one, self._bins, self.effort) for one in np.eye(self._count))
        if any(relaxation.upper() == -np.inf for relaxation in alone):
            self.upper = -np.inf
            return
        self.upper = own_limit(self.problem)
        price = self._cheapest_price() if self._count else 1.0
        if not self._count:
            self._bound(price)
        for share in _NEAR:
            if not self.proven:
                self._look(price * share)
        for share in _FAR:
            if self.best is None:
                self._look(price * share)

    @property
    def proven(self) -> bool:
        """Whether bound and best are one but for rounding."""
        return self.best is not None and self.upper - self.best.score <= self.rounding

    @property
    def rounding(self) -> float:
        """What sums in other orders may differ by."""
        return 2 * len(self.parts.options) * DELTA * max(abs(self.upper), 1.0)

    def _cheapest_price(self) -> float:
        """The price of the least bound, to a few hundredths."""
        known = {place: self._bound(float(np.exp(place))) for place in (-_COARSE, 0.0, _COARSE)}  # by its logarithm
        while (least := min(known, key=known.__getitem__)) in (min(known), max(known)):
            *_, second, first = sorted(known.values(), reverse=True)
            beside = least + (_COARSE if least > 0 else -_COARSE)
            if second - first <= _FLAT * abs(first) or abs(beside) > _WIDEST:  # no limit binds, or no price is enough
                return float(np.exp(least))
            known[beside] = self._bound(float(np.exp(beside)))
        found = minimize_scalar(
            lambda place: self._bound(float(np.exp(place))), bounds=(least - _COARSE, least + _COARSE), method="bounded",
            options={"xatol": _NEARNESS, "maxiter": _TURNS},
        )  # fmt: skip
        return float(np.exp(found.x))

    def _bound(self, price: float) -> float:
        """No detector within the limits scores more; `upper` is lowered to it."""
        self.effort.tell(f"a bound at the price of {price:.4g}")
        parts = self._parts_at(self.problem.at(price))
        options = [
            replace(options, score=options.score - price * options.costs.sum(axis=1), costs=options.costs[:, :0])
            for options in parts.options
        ]
        left = parts.behind_score - price * parts.behind_costs.sum(axis=1)
        nothing = np.zeros(0)
        free = replace(parts, options=options, resources=(), limits=nothing, tops=nothing,
                       behind_costs=parts.behind_costs[:, :0], behind_score=left)  # fmt: skip
        worth = Relaxation(free, nothing, 1, self.effort).upper()
        bound = worth + price * self._count
        bound += len(options) * DELTA * max(abs(worth), abs(bound), 1.0)  # sums in other orders
        self.upper = min(self.upper, bound)
        return bound

    def _parts_at(self, problem: GiraffeProblem) -> Parts:
        """The chain with the necks of a price: what stands behind its last block."""
        costs, score = behind(Pricing(problem, True), list(self.parts.taps), self.parts.widths, self.effort)
        return replace(self.parts, behind_costs=costs, behind_score=score)

    def _look(self, price: float) -> None:
        """Take the best detector within the limits that has the necks of a price, if it is better than what is known."""
        self.effort.tell(f"detectors with the necks of price {price:.4g}")
        problem = self.problem.at(price, above=False)
        parts = self._parts_at(problem)
        optimum = Optimum(problem, parts, self._bins, self.effort, np.zeros((0, problem.width), dtype=np.int64))
        try:
            if self._count < 2:
                reach = optimum.reach(Relaxation(parts, np.ones(self._count), self._bins, self.effort))
                optimum.offer(reach.rows)
                if price == np.inf and reach.upper == -np.inf:  # not even the cheapest necks fit
                    self.upper = -np.inf
            else:
                with self.effort.at_most(_STEPS):
                    optimum.solve()
        except Halt as halt:  # too many near a limit that is the score: other prices may do better
            if halt.interrupted or self.effort.spent:
                raise
        if optimum.best is not None and (self.best is None or optimum.score > self.best.score):
            self.best = candidates_of(problem, optimum.best[None])[0]
