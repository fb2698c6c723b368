"""The proof behind a search: exact search finds and proves the optimum where score and limits allow it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from nas.errors import UserError
from nas.searchers.candidate import Candidate
from nas.searchers.exact import ExactResult, exact_search
from nas.searchers.gene_problem import GeneProblem
from nas.searchers.history import History
from nas.searchers.loop import Progress, SearchOutcome
from nas.searchers.pareto import nondominated
from nas.searchers.problem import Problem

#: Costs at which the proof adds to the front that was found.
_LEVELS = 8


def prove(
    problem: Problem, outcome: SearchOutcome, on_progress: Callable[[Progress], None] | None = None
) -> SearchOutcome:
    """What another search found, with the optimum and its proof, or with `unproven` saying why there is none.

    Ctrl-C during the proof counts as an interruption: resuming takes up the finished search and proves again.
    """
    if outcome.interrupted:
        return outcome
    if not isinstance(problem, GeneProblem):
        return replace(outcome, unproven="this space or score has no sum over blocks to prove an optimum with")
    if on_progress is not None:
        on_progress(replace(_standing(problem, outcome), stage="proving the optimum"))
    start = time.monotonic()
    try:
        result = exact_search(problem, levels=_LEVELS)
    except UserError as error:
        return replace(outcome, unproven=str(error))
    except KeyboardInterrupt:
        return replace(outcome, interrupted=True)
    return _proven(problem, replace(outcome, seconds=outcome.seconds + time.monotonic() - start), result)


def _proven(problem: GeneProblem, outcome: SearchOutcome, result: ExactResult) -> SearchOutcome:
    """The outcome of a search with what exact search found and proved."""
    if result.certificate is None:
        return replace(outcome, unproven="exact search found nothing within the limits")
    front = _front(problem, _distinct([*outcome.front, *result.front]))
    outcome.history.extend(_rows(outcome.history.names, _distinct([*result.front, *result.near])))
    best = front[0].score
    certificate = replace(result.certificate, optimum=best, upper=max(result.certificate.upper, best))
    return replace(outcome, best=front[0], front=front, certificate=certificate, near=result.near)


def search_exactly(
    problem: Problem, on_progress: Callable[[Progress], None] | None = None, **options: Any
) -> SearchOutcome:
    """An exact search in the form of the others; its history holds the networks that it returns."""
    if not isinstance(problem, GeneProblem):
        raise UserError("searcher exact needs a TinyNAS space and a score that is a sum over blocks; use evolution")
    start = time.monotonic()
    result = exact_search(problem, **options)
    shown = _distinct([*result.front, *result.near])
    history, count = History(("score", *problem.metrics, "excess")), len(shown)
    history.extend(_rows(history.names, shown))
    seconds = time.monotonic() - start
    outcome = SearchOutcome(
        result.best, result.front, history, count, count, seconds, False, True, result.certificate, result.near
    )
    if on_progress is not None and result.best is not None:
        on_progress(_standing(problem, outcome))
    return outcome


def _standing(problem: Problem, outcome: SearchOutcome) -> Progress:
    """Where a search stands that has evaluated all it was asked for."""
    count, seconds = outcome.evaluated, outcome.seconds
    best = dict(outcome.best.metrics) if outcome.best is not None else None
    binding = problem.budget.binding(best) if best is not None else []
    closest = float(outcome.history.column("excess").min(initial=np.inf))
    return Progress(count, outcome.proposed, count, seconds, count / max(seconds, 1e-9), best, binding, closest)


def _distinct(candidates: list[Candidate]) -> list[Candidate]:
    return list({candidate.digest: candidate for candidate in candidates}.values())


def _rows(names: tuple[str, ...], candidates: list[Candidate]) -> np.ndarray:
    """Rows of a history (its last column is the excess) for candidates inside the budget."""
    rows = [[*(candidate.metrics[name] for name in names[:-1]), 0.0] for candidate in candidates]
    return np.array(rows).reshape(len(rows), len(names))


def _front(problem: GeneProblem, candidates: list[Candidate]) -> list[Candidate]:
    """Those that no other beats in score and every budgeted metric, the best first."""
    points = np.array([[-c.score, *(c.metrics[name] for name in problem.budget.metrics)] for c in candidates])
    keep = np.flatnonzero(nondominated(points))
    return [candidates[row] for row in sorted(keep, key=lambda row: tuple(points[row]))]
