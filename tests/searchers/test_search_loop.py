from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.cost.budget import Budget
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.frame import Frame
from nas.scorers import find_scorer
from nas.scorers.entropy import Entropy
from nas.searchers.base import Problem
from nas.searchers.catalog import check_searcher
from nas.searchers.evolution import Evolution, RandomSearch
from nas.searchers.history import History
from nas.searchers.loop import Progress, SearchOutcome, run_loop
from nas.searchers.problem import Objective
from nas.searchers.problem.specs import ScorerScore, SpecProblem
from nas.searchers.problem.vectorized import GeneProblem
from search_spaces.tinynas import SPACES

SPACE = SPACES["tinynas_k1kx"]
TABLE = LatencyTable.load("t4_tensorrt_fp16")


def fast(limits: dict[str, float] | None = None) -> GeneProblem:
    return GeneProblem(SPACE, Objective(Entropy(), TABLE, Frame()), Budget.of(limits or {"latency_ms": 3.0}))


def slow(workers: int = 1, limit: float = 4.0) -> SpecProblem:
    objective = Objective(None, TABLE, Frame())
    return SpecProblem(SPACE, objective, Budget.of({"latency_ms": limit}), ScorerScore(find_scorer("mae")), workers)


def searcher(problem: Problem, seed: int = 0) -> Evolution:
    return Evolution(problem, seed, population=32, batch=64, minor_from=300)


def summary(outcome: SearchOutcome) -> list[tuple]:
    return [(c.digest, c.born, c.parent, tuple(c.metrics.items())) for c in outcome.front]


class Killed(Exception):
    pass


def kill_after(batches: int):
    calls = []

    def watch(progress: Progress) -> None:
        calls.append(progress)
        if len(calls) == batches:
            raise Killed

    return watch


@pytest.mark.parametrize("make", [fast, slow])
def test_a_killed_search_resumes_to_the_same_result(make, tmp_path: Path) -> None:
    count = 700 if make is fast else 200
    problem = make()
    straight = run_loop(problem, searcher(problem), count)
    state = tmp_path / "state.npz"
    for batches in (2, 3):
        problem = make()
        with pytest.raises(Killed):
            run_loop(problem, searcher(problem), count, state=state, on_progress=kill_after(batches), save_every=0.0)
    problem = make()
    resumed = run_loop(problem, searcher(problem), count, state=state)
    assert summary(resumed) == summary(straight) and resumed.evaluated == straight.evaluated == count
    assert resumed.proposed == straight.proposed
    np.testing.assert_array_equal(resumed.history.matrix(), straight.history.matrix())
    finished = run_loop(make(), searcher(problem), count, state=state)
    assert summary(finished) == summary(straight)


def test_workers_do_not_change_the_result() -> None:
    outcomes = []
    for workers in (1, 2):
        problem = slow(workers)
        try:
            outcomes.append(summary(run_loop(problem, searcher(problem), 120)))
        finally:
            problem.close()
    assert outcomes[0] == outcomes[1] and outcomes[0]


def test_the_fast_and_the_general_problem_agree_on_numbers() -> None:
    general, quick = slow(limit=2.4), fast({"latency_ms": 2.4})
    specs = general.specs(general.sample(np.arange(20, dtype=np.uint64)))
    first, second = general.evaluate(general.encode(specs)), quick.evaluate(quick.encode(specs))
    np.testing.assert_allclose(first.metrics, second.metrics, rtol=1e-9)
    inside = np.isfinite(first.score)
    assert inside.any() and not inside.all()
    np.testing.assert_allclose(first.score[inside], second.score[inside], rtol=1e-11)


def test_ctrl_c_ends_after_the_batch_and_keeps_everything(tmp_path: Path) -> None:
    problem, state, before = fast(), tmp_path / "state.npz", signal.getsignal(signal.SIGINT)

    def interrupt(progress: Progress) -> None:
        if progress.evaluated > 100:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = run_loop(problem, searcher(problem), 600, state=state, on_progress=interrupt)
    assert stopped.interrupted and 100 < stopped.evaluated < 600
    assert signal.getsignal(signal.SIGINT) is before
    resumed = run_loop(fast(), searcher(problem), 600, state=state)
    assert summary(resumed) == summary(run_loop(fast(), searcher(fast()), 600))


def test_seeds_matter_and_everything_evaluated_is_distinct() -> None:
    problem = fast()
    outcomes = [run_loop(problem, searcher(problem, seed), 400) for seed in (0, 1)]
    assert summary(outcomes[0]) != summary(outcomes[1])
    assert len(np.unique(outcomes[0].history.matrix(), axis=0)) >= 398


def test_evolution_beats_random_search_and_starts_outside_the_budget() -> None:
    problem = fast({"latency_ms": 2.1})
    evolution = run_loop(problem, searcher(problem), 1500)
    chance = run_loop(problem, RandomSearch(problem, 0), 1500)
    assert evolution.best is not None and evolution.best.metrics["latency_ms"] <= 2.1
    assert chance.best is None or evolution.best.score > chance.best.score
    SPACE.check(evolution.best.spec)  # type: ignore[arg-type]


def test_the_front_holds_what_nothing_beats() -> None:
    problem = fast({"latency_ms": 3.0, "layers": 21})
    outcome = run_loop(problem, searcher(problem), 2000)
    values = np.stack(
        [-outcome.history.column("score"), *map(outcome.history.column, ("latency_ms", "layers"))], axis=1
    )
    values = values[outcome.history.column("excess") == 0]
    for candidate in outcome.front[:20]:
        metrics = candidate.metrics
        point = np.array([-metrics["score"], metrics["latency_ms"], metrics["layers"]])
        assert not ((values <= point).all(axis=1) & (values < point).any(axis=1)).any()
    assert outcome.best == outcome.front[0]


def test_a_small_space_is_exhausted_not_searched_forever() -> None:
    from dataclasses import replace

    space = replace(SPACE, channels=((32, 32), (64, 64), (64, 64), (128, 128), (256, 256)), depths=(1, 1, 1, 1, 2),
                    stem_channels=(16, 16), bottleneck=(0.5, 0.6))  # fmt: skip
    problem = GeneProblem(space, Objective(Entropy(), TABLE, Frame()), Budget.of({"latency_ms": 9.0}))
    outcome = run_loop(problem, searcher(problem), 10_000)
    assert outcome.exhausted and outcome.evaluated == space.size()


def test_states_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    problem, state = fast(), tmp_path / "state.npz"
    run_loop(problem, searcher(problem), 64, state=state, identity="a")
    with pytest.raises(UserError, match="another search"):
        run_loop(problem, searcher(problem), 64, state=state, identity="b")
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(UserError, match="not a readable"):
        run_loop(problem, searcher(problem), 64, state=state, identity="a")


def test_history_columns_and_samples() -> None:
    history = History(("score", "excess"))
    history.extend(np.array([[1.0, 0.0], [3.0, 0.5], [2.0, 0.0], [2.5, 0.0]]))
    assert history.improvements("score", history.column("excess") == 0).tolist() == [0, 2, 3]
    assert history.to_csv(history.sample(2, np.array([2]))).splitlines()[1:] == ["1,1.0,0.0", "3,2.0,0.0", "4,2.5,0.0"]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("auto", {"population": 1}, "searcher.population must be a whole number from 2 to 1,000,000, got 1"),
        ("evolution", {"population": 2.5}, "searcher.population must be a whole number"),
        ("evolution", {"batch": -5}, "searcher.batch must be a whole number from 1 to 1,000,000 or null, got -5"),
        ("evolution", {"crossover": math.nan}, "searcher.crossover must be a number from 0 to 1, got nan"),
        ("nsga2", {"population": True}, "searcher.population must be a whole number from 4 to 10,000, got True"),
        ("random", {"batch": 0}, "searcher.batch"),
        ("exact", {"levels": -3}, "searcher.levels"),
        ("exact", {"share": 2}, "searcher.share must be a number from 0 to 1, got 2"),
        ("optuna", {"storage": 5}, "searcher.storage must be text, got 5"),
        ("optuna", {"sampler": "magic"}, "searcher.sampler must be one of nsga2, tpe, random, got 'magic'"),
        ("optuna", {"lease": 0}, "searcher.lease"),
        ("optuna", {"problem": 1}, "searcher optuna has no option 'problem'; it has storage"),
        ("evolution", {"populations": 8}, "searcher evolution has no option 'populations'; did you mean population"),
        ("simulated", {}, "unknown searcher 'simulated'; known: auto"),
    ],
)
def test_senseless_settings_are_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        check_searcher(name, options)
    assert str(caught.value).startswith(words)
