"""Searchers by name, the problem that a space, a score and a budget make, and the networks that a search begins with."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nas.cost.budget import Budget
from nas.cost.latency import LatencyTable
from nas.errors import Caution, UserError, shown
from nas.extensions import found, installed, reference_to
from nas.files import is_spec_file, load_spec
from nas.frame import Frame
from nas.options import check_keywords
from nas.scorers import find_scorer
from nas.scorers.base import OWN
from nas.scorers.formula import formula_of
from nas.searchers.base import Problem, Searcher
from nas.searchers.evolution import Evolution, Nsga2, RandomSearch
from nas.searchers.exact.proof import prove, search_exactly
from nas.searchers.exact.search import exact_search
from nas.searchers.loop import Progress, SearchOutcome, interruptible, run_loop
from nas.searchers.problem import Objective
from nas.searchers.problem.block_table import Inseparable
from nas.searchers.problem.specs import MEMORY, ScorerScore, SpecProblem, require_sendable
from nas.searchers.problem.vectorized import GeneProblem
from nas.spec import Backbone, DetectorSpec, Spec, backbone_of
from search_spaces.base import SearchSpace
from search_spaces.published import load_published
from search_spaces.tinynas import TinyNASSpace

#: Makes a searcher of (problem, seed=..., **options).
Maker = Callable[..., Searcher]

#: Searchers that are asked and told; the keywords of their constructors are their options. `auto` is proved afterwards.
ASKED: dict[str, Maker] = {
    "auto": Evolution,
    "random": RandomSearch,
    "evolution": Evolution,
    "nsga2": Nsga2,
}

#: Options of `auto` that are those of its proof.
PROOF_OPTIONS = ("steps", "seconds")


def searcher_names() -> tuple[str, ...]:
    """Names that `search_with` knows."""
    return (*ASKED, "exact", "optuna")


#: Parameters of searchers that are not the user's.
_GIVEN = ("problem", "evaluations", "seed", "on_step", "on_progress", "identity", "stop", "start", "workers")


def check_searcher(searcher: str | Maker, options: Mapping[str, object]) -> dict[str, object]:
    """The options in the types of the searcher; raises UserError for an unknown searcher, option or value."""
    name, maker = searcher_name(searcher), _maker(searcher)
    proof, own = _split(name, options)
    checked = check_keywords(maker, own, "searcher", _GIVEN, f"searcher {name}")
    others = [key for key in inspect.signature(exact_search).parameters if key not in PROOF_OPTIONS]
    return checked | check_keywords(exact_search, proof, "searcher", others)


def _split(name: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the proof that follows `auto`, and those of the searcher itself."""
    proof = {key: options[key] for key in PROOF_OPTIONS if name == "auto" and key in options}
    return proof, {key: value for key, value in options.items() if key not in proof}


def searcher_name(searcher: str | Maker) -> str:
    """What a searcher is called in results: its name, or `module:attribute` of one's own."""
    return searcher if isinstance(searcher, str) else reference_to(searcher)


def _maker(searcher: str | Maker) -> Callable[..., Any]:
    """The function whose keywords are the options of a searcher; raises UserError for an unknown one."""
    if searcher == "optuna":
        from nas.searchers.optuna import search_with_optuna

        return search_with_optuna
    if searcher == "exact":
        return exact_search
    maker: Any = searcher
    if isinstance(searcher, str):
        maker = ASKED.get(searcher) or found(searcher, "searcher")
        if maker is None:
            raise UserError(
                f"unknown searcher {shown(searcher)}; known: {', '.join([*searcher_names(), *installed('searcher')])}"
            )
    if not callable(maker):
        raise UserError(f"searcher {searcher_name(searcher)} must be a class or a function that makes one")
    return maker


def _made(searcher: str | Maker, problem: Problem, seed: int, options: Mapping[str, Any]) -> Searcher:
    """A searcher on a problem; raises UserError if one's own lacks a part of the protocol."""
    made = _maker(searcher)(problem, seed=seed, **options)
    lacking = [part for part in ("batch", "ask", "tell", "state", "restore") if not hasattr(made, part)]
    if lacking:
        raise UserError(
            f"searcher {searcher_name(searcher)} lacks {', '.join(lacking)} (see nas.searchers.base.Searcher)"
        )
    return made


def member_of(given: object, space: SearchSpace[Spec]) -> Spec:
    """A network to begin with as a member of the space: a spec, or what a published name or a file stands for.

    Of a chain of blocks that breaks some limit the nearest member is taken, with a Caution.
    """
    name = f"start {given}" if isinstance(given, str | Path) else "a spec of start"
    if isinstance(given, str | Path):
        given = load_spec(given) if is_spec_file(given) else load_published(str(given))
    if not isinstance(given, Backbone | DetectorSpec):
        raise UserError(f"start must hold published names, spec files and specs, got {shown(given)}")
    spec = given if isinstance(space.initial(), DetectorSpec) else backbone_of(given)
    if type(spec) is not type(space.initial()):
        raise UserError(f"{name}: space {space.name} holds whole detectors, and this is a backbone")
    broken = space.violations(spec)
    if not broken:
        return spec
    near = space.genes.nearest(backbone_of(spec)) if isinstance(space, TinyNASSpace) else None
    if near is None:
        raise UserError(f"{name}: not in space {space.name}: {broken[0]}")
    what = f"{name} is not in space {space.name} ({broken[0]})"
    warnings.warn(f"{what}: the search begins with the nearest member", Caution, stacklevel=2)
    return near


def make_problem(
    space: SearchSpace[Spec],
    budget: Budget,
    scorer: str | Callable[..., object],
    options: Mapping[str, object],
    table: LatencyTable | None,
    frame: Frame | None,
    image_size: int,
    workers: int = 1,
) -> Problem:
    """The fast array problem where space and score have a closed form, else the general one over `workers` processes.

    frame: neck and head around the backbone, or None to price the bare backbone at `image_size` pixels.
    """
    chosen = find_scorer(scorer)
    chosen.check_options(dict(options))
    fast = isinstance(space, TinyNASSpace) and MEMORY not in budget.metrics and chosen.source != OWN
    formula = formula_of(chosen, options) if fast else None
    if isinstance(space, TinyNASSpace) and formula is not None:
        with suppress(Inseparable):
            return GeneProblem(space, Objective(formula, table, frame, image_size, budget.metrics), budget)
    objective = Objective(None, table, frame, image_size, budget.metrics)
    score = ScorerScore(chosen, tuple(sorted(options.items())), objective.image_size)
    if workers > 1:
        require_sendable(score)
    return SpecProblem(space, objective, budget, score, workers)


def search_with(
    searcher: str | Maker,
    options: Mapping[str, object],
    problem: Problem,
    evaluations: int,
    seed: int = 0,
    *,
    state: Path | None = None,
    identity: str = "",
    on_progress: Callable[[Progress], None] | None = None,
    start: Sequence[Spec] = (),
) -> SearchOutcome:
    """Run the searcher of that name on a problem, from the members `start`; see `run_loop`.

    Exact search needs neither seed nor state nor limit; `auto` is evolution with its options, and then the proof of the
    optimum where there can be one.
    """
    name = searcher_name(searcher)
    proof, own = _split(name, check_searcher(searcher, options))
    if name == "exact":
        return search_exactly(problem, on_progress, start, **own)
    if name == "optuna":
        from nas.searchers.optuna import search_with_optuna

        with interruptible() as stop:
            return search_with_optuna(
                problem,
                evaluations,
                seed,
                identity=identity,
                on_progress=on_progress,
                stop=stop,
                start=start,
                workers=problem.workers if isinstance(problem, SpecProblem) else 1,
                **own,
            )
    made = _made(searcher, problem, seed, own)
    first = problem.encode(start)
    outcome = run_loop(problem, made, evaluations, state=state, identity=identity, on_progress=on_progress, start=first)
    return prove(problem, outcome, on_progress, **proof) if name == "auto" else outcome
