"""Searchers by name, and the problem that a space, a score and a budget make."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nas.cost.budget import Budget
from nas.cost.latency import LatencyTable
from nas.errors import UserError, shown
from nas.frame import Frame
from nas.options import check_keywords
from nas.scorers import find_scorer
from nas.searchers.base import Searcher
from nas.searchers.evolution import Evolution
from nas.searchers.exact.proof import prove, search_exactly
from nas.searchers.exact.search import exact_search
from nas.searchers.loop import Progress, SearchOutcome, interruptible, run_loop
from nas.searchers.nsga2 import Nsga2
from nas.searchers.problem.base import Problem
from nas.searchers.problem.formulas import formula_of
from nas.searchers.problem.objective import Objective
from nas.searchers.problem.specs import MEMORY, NamedScore, SpecProblem
from nas.searchers.problem.vectorized import GeneProblem
from nas.searchers.random import RandomSearch
from search_spaces.base import SearchSpace
from search_spaces.chain import TinyNASSpace

#: Searchers that are asked and told; the keywords of their constructors are their options. `auto` is proved afterwards.
ASKED: dict[str, Callable[..., Searcher]] = {
    "auto": Evolution,
    "random": RandomSearch,
    "evolution": Evolution,
    "nsga2": Nsga2,
}

#: Options of `auto` that are those of its proof.
PROOF_OPTIONS = ("steps",)


def searcher_names() -> tuple[str, ...]:
    """Names that `search_with` knows."""
    return (*ASKED, "exact", "optuna")


#: Parameters of searchers that are not the user's.
_GIVEN = ("problem", "evaluations", "seed", "on_step", "on_progress", "identity", "stop", "start")


def check_searcher(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options in the types of the searcher; raises UserError for an unknown searcher, option or value."""
    if name not in searcher_names():
        raise UserError(f"unknown searcher {shown(name)}; known: {', '.join(searcher_names())}")
    proof, own = _split(name, options)
    checked = check_keywords(_maker(name), own, "searcher", _GIVEN, f"searcher {name}")
    others = [key for key in inspect.signature(exact_search).parameters if key not in PROOF_OPTIONS]
    return checked | check_keywords(exact_search, proof, "searcher", others)


def _split(name: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the proof that follows `auto`, and those of the searcher itself."""
    proof = {key: options[key] for key in PROOF_OPTIONS if name == "auto" and key in options}
    return proof, {key: value for key, value in options.items() if key not in proof}


def _maker(name: str) -> Callable[..., Any]:
    """The function whose keywords are the options of a searcher."""
    if name == "optuna":
        from nas.searchers.optuna import search_with_optuna

        return search_with_optuna
    return exact_search if name == "exact" else ASKED[name]


def make_problem(
    space: SearchSpace[Any],
    budget: Budget,
    scorer: str,
    options: Mapping[str, Any],
    table: LatencyTable | None,
    frame: Frame | None,
    image_size: int,
    workers: int = 1,
) -> Problem:
    """The fast array problem where space and score have a closed form, else the general one over `workers` processes.

    frame: neck and head around the backbone, or None to price the bare backbone at `image_size` pixels.
    """
    find_scorer(scorer).check_options(dict(options))
    fast = isinstance(space, TinyNASSpace) and MEMORY not in budget.metrics
    formula = formula_of(scorer, options, space.kind) if isinstance(space, TinyNASSpace) and fast else None
    if isinstance(space, TinyNASSpace) and formula is not None:
        return GeneProblem(space, Objective(formula, table, frame, image_size), budget)
    objective = Objective(None, table, frame, image_size)
    score = NamedScore(scorer, tuple(sorted(options.items())), objective.image_size)
    return SpecProblem(space, objective, budget, score, workers)


def search_with(
    name: str,
    options: Mapping[str, Any],
    problem: Problem,
    evaluations: int,
    seed: int = 0,
    *,
    state: Path | None = None,
    identity: str = "",
    on_progress: Callable[[Progress], None] | None = None,
) -> SearchOutcome:
    """Run the searcher of that name on a problem; see `run_loop`. Exact search needs neither seed nor state nor limit;
    `auto` is evolution with its options, and then the proof of the optimum where there can be one."""
    options = check_searcher(name, options)
    if name == "exact":
        return search_exactly(problem, on_progress, **options)
    if name == "optuna":
        from nas.searchers.optuna import search_with_optuna

        with interruptible() as stop:
            return search_with_optuna(
                problem, evaluations, seed, identity=identity, on_progress=on_progress, stop=stop, **options
            )
    proof, own = _split(name, options)
    searcher = ASKED[name](problem, seed=seed, **own)
    outcome = run_loop(problem, searcher, evaluations, state=state, identity=identity, on_progress=on_progress)
    return prove(problem, outcome, on_progress, **proof) if name == "auto" else outcome
