"""python -m experiments.exact_search.cell SPACE SCORE BUDGET [seed=0]: one cell of the matrix, proved in a process of its own.

A line `doing ...` for every stage, then one of JSON with what came out. The process has CPU_SECONDS and MEMORY; what it
does not get done in them is unproven, with the bound that was reached, and the best that was found, or that a short
evolution finds, as a value below it.
"""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.command import run, split_words
from nas.commands.search import limits_of
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.files import config_folder, read_yaml
from nas.memory import peak_memory
from nas.searchers.base import Problem
from nas.searchers.catalog import make_problem, search_with
from nas.searchers.exact.lagrange import exact_search_of
from nas.searchers.exact.parts import ChainProblem, linear_score
from nas.searchers.exact.proof import chain_problem, search_exactly
from nas.searchers.exact.search import ExactResult
from nas.searchers.settings import SearchSettings

#: CPU time and memory of a cell's process; what of the time is kept for the evolution behind an unproven cell.
CPU_SECONDS, RESERVE, MEMORY = 60.0, 15.0, 2 << 30
#: Networks that evolution tries where exact search found none.
EVALUATIONS = 2_000
PROVED, NOTHING, UNPROVED, NOT_SERVED = "proved", "nothing fits", "unproved", "not served"


@dataclass(frozen=True)
class Finding:
    """What came out of a cell.

    state: PROVED, NOTHING (proven, too), UNPROVED or NOT_SERVED, the last two with a reason; value: the best score that is
    known; bound: no network scores more (None where nothing is known of either).
    """

    state: str
    reason: str = ""
    value: float | None = None
    bound: float | None = None


def budget_limits(name: str) -> dict[str, object]:
    """{cost: limit} of an entry of conf/budget; raises UserError for an unknown one."""
    path = Path(config_folder()) / "budget" / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"there is no budget {name!r}; see python -m nas.list budgets")
    document = read_yaml(path)
    assert isinstance(document, dict)
    return limits_of(document)


def problem_of(space: str, score: str, budget: str) -> Problem:
    """The search problem of a cell: whole detectors with the default neck and table; raises UserError for an unknown name."""
    settings = SearchSettings.of(budget_limits(budget), space, scorer=score)
    table = LatencyTable.load(settings.hardware)
    return make_problem(settings.space, settings.budget, score, {}, table, settings.frame, settings.frame.image_size)


def refusal(problem: Problem) -> str:
    """Why exact search does not take the score on the space at all; empty where it does."""
    chain = chain_problem(problem)
    try:
        if chain is None:
            search_exactly(problem)
        else:
            linear_score(chain.objective.formula, len(set(chain.levels)))
    except UserError as error:
        return str(error).removeprefix("searcher exact cannot serve: ").removesuffix("; use evolution")
    return ""


def prove(
    problem: Problem, seed: int = 0, seconds: float | None = None, tell: Callable[[str], None] = lambda doing: None
) -> Finding:
    """The optimum of a problem, or how far `seconds` of CPU time come (None: no limit but that of its steps)."""
    if reason := refusal(problem):
        return Finding(NOT_SERVED, reason)
    chain = chain_problem(problem)
    assert chain is not None
    result = _result(chain, seconds, tell)
    reason = result if isinstance(result, str) else result.unproven
    if isinstance(result, ExactResult):
        if result.certificate is not None and result.best is not None:
            return Finding(PROVED, "", result.best.score, result.upper)
        if result.impossible:
            return Finding(NOTHING)
    upper = result.upper if isinstance(result, ExactResult) and math.isfinite(result.upper) else None
    best = result.best if isinstance(result, ExactResult) else None
    if best is None:
        tell("evolution")
        best = search_with("evolution", {}, problem, EVALUATIONS, seed).best
    return Finding(UNPROVED, reason, None if best is None else best.score, upper)


def _result(chain: ChainProblem, seconds: float | None, tell: Callable[[str], None]) -> ExactResult | str:
    """What exact search found, or why it gave up before it began."""
    try:
        return exact_search_of(chain)(chain, levels=1, near=0, seconds=seconds, on_step=tell)
    except UserError as error:
        return str(error)
    except MemoryError:
        return f"it needs more than the {MEMORY >> 30} GiB that a cell has"


def main(words: list[str]) -> None:
    """Prove one cell within its limits and print what came out; UserError for an unknown name."""
    names, given = split_words(words, {"seed": 0})
    if len(names) != 3:
        raise UserError("name a space, a score and a budget")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(CPU_SECONDS), int(CPU_SECONDS)))
    left = CPU_SECONDS - RESERVE - time.process_time()
    finding = prove(problem_of(*names), given["seed"], left, lambda doing: print("doing", doing, flush=True))
    told = {"seconds": round(time.process_time(), 1), "memory_mb": round(peak_memory() or 0)}
    print(json.dumps(asdict(finding) | told), flush=True)


if __name__ == "__main__":
    run(main)
