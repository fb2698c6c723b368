"""python -m experiments.search_speed [evaluations=1000000] [space=tinynas_k1kx] [budget=3.0] [hardware=NAME] [save=false]

Distinct candidates per CPU second on one core, each scored, costed (latency, parameters, MACs, activations, layers,
rho) and checked against the budget as a whole detector, and the memory that they take. save=true: also into result.json.
"""

from __future__ import annotations

import platform
import time
from pathlib import Path

from experiments.command import options_of, run
from experiments.evidence import save_result
from nas.cost.budget import Budget
from nas.cost.latency import LatencyTable
from nas.cost.table_file import cpu_name
from nas.frame import Frame
from nas.measure import commit
from nas.memory import peak_memory
from nas.scorers.entropy import Entropy
from nas.searchers.evolution import Evolution
from nas.searchers.loop import run_loop
from nas.searchers.problem import Objective
from nas.searchers.problem.vectorized import GeneProblem
from search_spaces.tinynas import SPACES


def main(words: list[str]) -> None:
    """Search once and print its rate and memory; UserError for what cannot be run."""
    given = options_of(
        words,
        {
            "evaluations": 1_000_000,
            "space": "tinynas_k1kx",
            "budget": 3.0,
            "hardware": "t4_tensorrt_fp16",
            "seed": 0,
            "save": False,
        },
    )
    count = given["evaluations"]
    table = LatencyTable.load(given["hardware"])
    before = peak_memory() or 0.0
    start = time.process_time()
    objective = Objective(Entropy(), table, Frame())
    problem = GeneProblem(SPACES[given["space"]], objective, Budget.of({"latency_ms": given["budget"]}))
    outcome = run_loop(problem, Evolution(problem, given["seed"], minor_from=count // 2), count)
    spent = time.process_time() - start
    after = peak_memory() or 0.0
    print(f"{outcome.evaluated:,} distinct candidates of {outcome.proposed:,} proposals in {spent:.1f} CPU seconds")
    print(f"{outcome.evaluated / spent:,.0f} distinct candidates per second per core, set-up and front included")
    print(f"peak memory {after:.0f} MB ({after - before:.0f} MB above start); best score {outcome.front[0].score:.3f}")
    print(f"machine: {cpu_name()}, Python {platform.python_version()}; commit {commit()[:7] or 'unknown'}")
    if given["save"]:
        numbers = {
            "distinct_candidates": outcome.evaluated,
            "cpu_seconds": round(spent, 2),
            "candidates_per_second": round(outcome.evaluated / spent),
            "peak_memory_mb": round(after),
            "best_score": round(outcome.front[0].score, 3),
        }
        case = f"{given['space']}, {given['budget']} ms on {given['hardware']}, seed {given['seed']}"
        print(save_result(Path(__file__).with_name("result.json"), case, numbers))


if __name__ == "__main__":
    run(main)
