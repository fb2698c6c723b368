from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.official_problems import PROBLEMS
from nas.cost.budget import Budget
from nas.cost.latency import LatencyTable
from nas.frame import Frame
from nas.scorers.entropy import Entropy
from nas.searchers.evolution import Nsga2
from nas.searchers.exact.search import exact_search
from nas.searchers.loop import Progress, run_loop
from nas.searchers.pareto import crowding, hypervolume, nondominated, ranks, survivors
from nas.searchers.problem import Objective
from nas.searchers.problem.vectorized import GeneProblem
from search_spaces.tinynas import SPACES


def test_successive_fronts_peel_the_points() -> None:
    points = np.random.default_rng(0).integers(0, 12, size=(200, 2)).astype(float)
    left = np.arange(200)
    for front in ranks(points, 200):
        first = {tuple(row) for row in points[left[nondominated(points[left])]]}
        assert {tuple(row) for row in points[front]} == first
        left = np.setdiff1d(left, front)
    assert len(left) == 0


def test_crowding_prefers_the_extremes_and_the_lonely() -> None:
    points = np.array([[0.0, 10.0], [1.0, 9.0], [1.2, 8.9], [5.0, 3.0], [10.0, 0.0]])
    distance = crowding(points)
    assert np.isinf(distance[[0, 4]]).all() and distance[3] > distance[1] > 0


def test_individuals_outside_come_last_and_nearest_first() -> None:
    points = np.array([[5.0, 5.0], [0.0, 0.0], [0.0, 1.0], [6.0, 4.0]])
    assert survivors(points, np.array([0.0, 0.2, 0.1, 0.0]), 3).tolist() == [0, 3, 2]


def front_of(outcome_front: list) -> np.ndarray:
    return np.array([[-c.score, c.metrics["latency_ms"]] for c in outcome_front])


def agreement(problem: GeneProblem, evaluations: int, levels: int) -> float:
    """Hypervolume of NSGA-II's front as a share of the exact front's, from the dearest and worst corner."""
    exact = front_of(exact_search(problem, levels=levels, near=1).front)
    found = front_of(run_loop(problem, Nsga2(problem, 0), evaluations).front)
    corner = [-min(-exact[:, 0]), exact[:, 1].max() * 1.001]
    return hypervolume(found, corner) / hypervolume(exact, corner)


def test_the_front_agrees_with_the_exact_one() -> None:
    table = LatencyTable.load("t4_tensorrt_fp16")
    problem = GeneProblem(SPACES["tinynas_k1kx"], Objective(Entropy(), table), Budget.of({"latency_ms": 1.6}))
    assert agreement(problem, 8_000, 12) > 0.95


def test_the_front_agrees_on_the_official_table(shared: Path) -> None:
    table = LatencyTable.load(shared / "data/latency/v100_fp16_damoyolo.txt")
    small = PROBLEMS["small"]
    objective = small.build(table).objective
    problem = GeneProblem(SPACES[small.space], objective, Budget.of({"latency_ms": small.latency_ms}))
    assert 0.98 < agreement(problem, 40_000, 128) < 1.02


def test_a_killed_run_resumes(tmp_path: Path) -> None:
    table = LatencyTable.load("t4_tensorrt_fp16")
    problem = GeneProblem(SPACES["tinynas_k1kx"], Objective(Entropy(), table, Frame()), Budget.of({"flops_g": 20.0}))
    straight = run_loop(problem, Nsga2(problem, 3, population=32), 320)
    state = tmp_path / "state.npz"

    def kill(progress: Progress) -> None:
        if progress.evaluated > 128:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_loop(problem, Nsga2(problem, 3, population=32), 320, state=state, on_progress=kill, save_every=0.0)
    resumed = run_loop(problem, Nsga2(problem, 3, population=32), 320, state=state)
    assert [c.digest for c in resumed.front] == [c.digest for c in straight.front]
