from __future__ import annotations

from pathlib import Path

import pytest

from experiments.official_problems import PROBLEMS
from nas.cost.latency import LatencyTable
from nas.searchers.evolution import Evolution
from nas.searchers.loop import run_loop


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_evolution_passes_the_published_score_within_a_few_thousand_candidates(name: str, shared: Path) -> None:
    problem = PROBLEMS[name].build(LatencyTable.load(shared / "data/latency/v100_fp16_damoyolo.txt"))
    outcome = run_loop(problem, Evolution(problem, seed=0), 20_000)
    assert outcome.best is not None and outcome.best.score >= PROBLEMS[name].target
    assert outcome.best.metrics["layers"] <= PROBLEMS[name].layers
    assert outcome.best.metrics["latency_ms"] <= PROBLEMS[name].latency_ms
