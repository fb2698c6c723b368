"""The proof behind a search: exact search finds and proves the optimum where score and limits allow it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeGuard

import numpy as np

from nas.errors import UserError
from nas.scorers.formula import Formula, formula_of
from nas.scorers.neck_entropy import NeckEntropy
from nas.searchers.base import Candidate, Problem
from nas.searchers.evolution import Evolution, RandomSearch
from nas.searchers.exact.effort import STEPS
from nas.searchers.exact.lagrange import exact_search_of, weighs_necks
from nas.searchers.exact.optimum import own_limit
from nas.searchers.exact.parts import SUMS, ChainProblem, is_convex
from nas.searchers.exact.search import ExactResult
from nas.searchers.history import History
from nas.searchers.loop import Progress, SearchOutcome, interruptible, run_loop
from nas.searchers.pareto import best_first
from nas.searchers.problem.block_table import Inseparable
from nas.searchers.problem.giraffe_chain import GiraffeProblem
from nas.searchers.problem.specs import MEMORY, ScorerScore, SpecProblem
from nas.searchers.problem.stage_chain import StageProblem
from nas.searchers.problem.vectorized import GeneProblem
from nas.spec import Spec
from search_spaces.giraffe import GiraffeSpace
from search_spaces.stages import StageSpace
from search_spaces.tinynas import TinyNASSpace

#: Costs at which the proof adds to the front that was found.
_LEVELS = 8
#: Evaluations of the evolution before an exact search that needs a good start; of a problem whose evaluations are slow.
_WARM_UP, _SLOW_WARM_UP = 20_000, 2_000


def prove(
    problem: Problem,
    outcome: SearchOutcome,
    on_progress: Callable[[Progress], None] | None = None,
    steps: int = STEPS,
    seconds: float | None = None,
) -> SearchOutcome:
    """What another search found, with the optimum and its proof, or with `unproven` saying why there is none.

    The proof starts from the best that was found; steps, seconds: as of `exact_search`. Ctrl-C during the proof counts as an
    interruption: what both have found until then is kept, and resuming takes up the finished search and proves again.
    """
    if outcome.interrupted:
        return outcome
    chain = chain_problem(problem)
    if chain is None:
        return replace(outcome, unproven=_no_sum(problem))
    began, standing = time.monotonic(), _standing(problem, outcome)
    try:
        result = _searched(chain, outcome.front, standing, on_progress, levels=_LEVELS, steps=steps, seconds=seconds)
    except UserError as error:
        return replace(outcome, unproven=str(error))
    except KeyboardInterrupt:
        return replace(outcome, interrupted=True)
    return _proven(problem, replace(outcome, seconds=outcome.seconds + time.monotonic() - began), result)


def _searched(
    problem: ChainProblem,
    front: list[Candidate],
    standing: Progress,
    on_progress: Callable[[Progress], None] | None,
    **options: Any,
) -> ExactResult:
    """An exact search from the best of a front, which tells what it does and which the first Ctrl-C ends early."""
    start = problem.encode([candidate.spec for candidate in front[:1]])

    def tell(stage: str) -> None:
        if on_progress is not None:
            on_progress(replace(standing, stage=stage))

    with interruptible() as stop:
        return exact_search_of(problem)(problem, **options, on_step=tell, stop=stop, start=start)


def _proven(problem: Problem, outcome: SearchOutcome, result: ExactResult) -> SearchOutcome:
    """The outcome of a search with what exact search found and proved."""
    if result.best is None:
        unproven = _without_proof(result, None)
        return replace(outcome, unproven=unproven, impossible=result.impossible, interrupted=result.interrupted)
    front = _front(problem, _distinct([*outcome.front, *result.front]))
    outcome.history.extend(_rows(outcome.history.names, _distinct([*result.front, *result.near])))
    best, certificate = front[0], result.certificate
    unproven = _without_proof(result, best)
    if certificate is not None:
        hair = best.score - certificate.upper  # the same network, summed up in another order
        upper = best.score if 0 < hair <= certificate.rounding else certificate.upper
        certificate = replace(certificate, optimum=best.score, upper=upper)
    return replace(
        outcome,
        best=best,
        front=front,
        certificate=certificate,
        near=result.near,
        near_share=result.share,
        unproven=unproven,
        open_levels=result.open_levels,
        interrupted=result.interrupted,
    )


def _without_proof(result: ExactResult, best: Candidate | None) -> str:
    """Why there is no proof, and how far from one the best that is known is; empty with a proof."""
    if not result.unproven:
        return ""
    if not np.isfinite(result.upper):
        return f"{result.unproven}; no bound is known"
    bound = f"no member of the space within the limits scores more than {result.upper:.6f}"
    if best is None:
        return f"{result.unproven}; {bound}"
    return f"{result.unproven}; {bound} (gap {result.upper - best.score:.3g} above the best found)"


def chain_problem(problem: Problem) -> ChainProblem | None:
    """A problem as a chain with tables of its costs; None where the space is no chain or the score no sum."""
    if isinstance(problem, GeneProblem):
        return problem
    if not isinstance(problem, SpecProblem) or MEMORY in problem.metrics:
        return None
    formula, space = _formula(problem), problem.space
    if not _served(formula):
        return None
    if isinstance(space, StageSpace):
        return StageProblem(problem, space, formula)
    if isinstance(space, GiraffeSpace):
        weighs, linear = _sees_neck(problem.score, space), formula.linear()
        if not weighs or isinstance(formula, NeckEntropy) or (linear is not None and linear.metric):
            with suppress(Inseparable):
                return GiraffeProblem(problem, space, formula, weighs)
    return None


def _formula(problem: SpecProblem) -> Formula | None:
    """The closed form of a problem's score; None without one."""
    score = problem.score
    return formula_of(score.scorer, dict(score.options)) if isinstance(score, ScorerScore) else None


def _served(formula: Formula | None) -> TypeGuard[Formula]:
    """Whether exact search serves a score: a sum over blocks, or a convex function of such sums."""
    return formula is not None and (formula.linear() is not None or is_convex(formula))


def _sees_neck(score: Callable[[Spec], float], space: GiraffeSpace) -> bool:
    """Whether a quick score tells a backbone under the space's smallest neck from the same under its largest."""
    quick, (least, most) = isinstance(score, ScorerScore) and not score.costly, space.necks
    return quick and score(replace(space.initial(), neck=least)) != score(replace(space.initial(), neck=most))


def _no_sum(problem: Problem) -> str:
    """Why exact search has no sum over blocks to work with."""
    if MEMORY in problem.budget.metrics:
        return f"{MEMORY} is a maximum over the run of a network, no sum over its blocks"
    if not isinstance(problem, SpecProblem):
        return "this problem is not a chain of blocks with tables of their costs"
    space, served = problem.space, _served(_formula(problem))
    name = problem.score.scorer.name if isinstance(problem.score, ScorerScore) else "of this search"
    if isinstance(space, GiraffeSpace) and served and _sees_neck(problem.score, space):
        return (
            f"scorer {name} sees the neck, which space {space.name} searches too; exact search serves mae_neck, counts and "
            "scores of the backbone there"
        )
    if not isinstance(space, TinyNASSpace | StageSpace | GiraffeSpace):
        return f"space {space.name} is no chain of blocks with tables of their costs"
    if not isinstance(space, StageSpace) and served:
        return f"in space {space.name} shortcuts depend on widths, so scorer {name} is no sum over blocks there"
    return f"scorer {name} is none of the sums over blocks that exact search serves: {SUMS}"


def search_exactly(
    problem: Problem,
    on_progress: Callable[[Progress], None] | None = None,
    start: Sequence[Spec] = (),
    **options: object,
) -> SearchOutcome:
    """An exact search in the form of the others; its history holds the networks that it returns.

    Under several limits, for a convex function of sums, for a count that is limited itself, and for a score that sees a
    searched neck, a short evolution comes first: its best, or that of `start`, is what the proof starts from.
    """
    chain = chain_problem(problem)
    if chain is None:
        raise UserError(f"searcher exact cannot serve: {_no_sum(problem)}; use evolution")
    began = time.monotonic()
    empty = SearchOutcome(None, [], History(("score", *problem.metrics, "excess")), 0, 0, 0.0, False, True)
    sums = [name for name, _, high in problem.budget.ranges if name != "layers" and high < np.inf]
    sums += [name for name, low, _ in problem.budget.ranges if low]
    for name in sums:
        try:
            chain.objective.additive(name)
        except UserError as error:  # before any work
            raise UserError(f"searcher exact cannot serve: {error}; use evolution") from None
    warm = weighs_necks(chain) or len(sums) > 1 or is_convex(chain.objective.formula) or own_limit(chain) < np.inf
    known = problem.encode(start)
    warm_up = _WARM_UP if problem.generous else _SLOW_WARM_UP
    first = run_loop(problem, Evolution(problem), warm_up, start=known) if warm else empty
    if len(known) and not warm:
        first = run_loop(problem, RandomSearch(problem, batch=len(known)), len(known), start=known)
    if first.interrupted:
        return first
    result = _searched(chain, first.front, _standing(problem, first), on_progress, **options)
    seconds = time.monotonic() - began
    outcome = _proven(problem, replace(empty, seconds=seconds), result)
    outcome = replace(outcome, evaluated=len(outcome.history), proposed=len(outcome.history))
    if on_progress is not None and outcome.best is not None:
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


def _front(problem: Problem, candidates: list[Candidate]) -> list[Candidate]:
    """Those that no other beats in score and every budgeted metric, the best first."""
    costs = np.array([[c.metrics[name] for name in problem.budget.metrics] for c in candidates])
    return [candidates[row] for row in best_first(np.array([c.score for c in candidates]), costs)]
