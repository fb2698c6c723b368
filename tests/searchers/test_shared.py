from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from nas.cost.budget import Budget
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.frame import Frame
from nas.scorers.entropy import Entropy
from nas.searchers.optuna import open_storage, search_with_optuna
from nas.searchers.problem import Objective
from nas.searchers.problem.vectorized import GeneProblem
from nas.searchers.shared import SharedStudy, _Heartbeat
from search_spaces.tinynas import SPACES

ROOT = Path(__file__).resolve().parents[2]
TASKS = 24


def study_in(storage: str | None = None, **options) -> optuna.Study:  # type: ignore[no-untyped-def]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(storage=open_storage(storage) if storage else None, **options)


def kill_two_of_four(storage: str, folder: Path) -> None:
    """Four worker processes, two killed with -9 in the middle of a task; then nothing is lost or counted twice."""
    log = folder / "log"
    command = [sys.executable, str(Path(__file__).with_name("shared_worker.py")), storage, str(TASKS), str(log)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    study_in(storage, study_name="tasks")
    workers = [
        subprocess.Popen(command + more, env=environment, stderr=subprocess.PIPE)
        for more in (["hang"],) * 2 + ([],) * 2
    ]
    try:
        while not log.exists() or len(log.read_text().splitlines()) < 2:
            assert all(worker.poll() is None for worker in workers)
            time.sleep(0.05)
        for worker in workers[:2]:
            worker.kill()
        for worker in workers[2:]:
            errors = worker.communicate()[1].decode()
            assert worker.returncode == 0, errors
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    study = optuna.load_study(study_name="tasks", storage=open_storage(storage))
    shared = SharedStudy(study, TASKS)
    results = shared.results()
    assert shared.unfinished() == 0 and len(results) == TASKS
    complete = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert sorted(t.number for t in complete) == sorted(t.number for t in results)
    assert len({t.user_attrs.get("task", t.number) for t in complete}) == TASKS
    assert all(trial.state.is_finished() for trial in study.trials)
    assert {t.user_attrs["worker"] for t in results} <= {worker.pid for worker in workers[2:]}
    lost = {int(line.split()[1]) for line in log.read_text().splitlines()}
    assert len(lost) == 2 and not lost & {t.number for t in results}


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_two_of_four_workers_die_and_nothing_is_lost(kind: str, tmp_path: Path) -> None:
    kill_two_of_four(
        f"journal:{tmp_path / 'journal.log'}" if kind == "journal" else f"sqlite:///{tmp_path / 's.db'}", tmp_path
    )


@pytest.mark.benchmark
def test_two_of_four_workers_die_on_postgresql(tmp_path: Path) -> None:
    url = os.environ.get("MAENAS_POSTGRESQL", "")
    if not url:
        pytest.skip("set MAENAS_POSTGRESQL to the URL of an empty database")
    kill_two_of_four(url, tmp_path)


def test_a_silent_trial_is_taken_and_its_late_result_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [5.0]
    monkeypatch.setattr("nas.searchers.shared.time", SimpleNamespace(monotonic=lambda: clock[0]))
    study = study_in()
    slow, other = SharedStudy(study, 2, lease=0.05), SharedStudy(study, 2, lease=0.05)
    lost = slow.claim()
    assert lost is not None
    lost.suggest_float("x", 0, 1)
    mine = other.claim()
    assert mine is not None and other.finish(mine, [1.0], {}) and other.claim() is None
    clock[0] += 0.1
    again = other.claim()
    assert again is not None and again.user_attrs["task"] == lost.number
    assert again.suggest_float("x", 0, 1) == lost.params["x"]
    assert not slow.finish(lost, [5.0], {"late": 1})
    assert other.finish(again, [2.0], {})
    assert [trial.values[0] for trial in other.results()] == [2.0, 1.0] and other.unfinished() == 0


def test_a_worker_whose_trial_was_taken_before_it_began_goes_on() -> None:
    study = study_in()
    shared = SharedStudy(study, 3, lease=60.0)
    begun: list[int] = []

    def evaluate(trial: optuna.Trial) -> tuple[list[float], dict[str, object]]:
        begun.append(trial.number)
        if len(begun) == 1:  # another worker believed this one dead
            study.tell(trial.number, state=TrialState.FAIL)
        return [trial.suggest_float("x", 0.0, 1.0)], {}

    assert shared.work(evaluate, poll=0.01) == 3 and len(begun) == 4
    assert len(shared.results()) == 3


def test_a_storage_that_cannot_write_ends_a_search_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = LatencyTable.load("t4_tensorrt_fp16")
    problem = GeneProblem(SPACES["tinynas_k1kx"], Objective(Entropy(), table, Frame()), Budget.of({"latency_ms": 3.0}))
    storage, written = f"sqlite:///{tmp_path / 'study.db'}", RDBStorage.set_trial_state_values
    told: list[int] = []

    def full(self: RDBStorage, *given: object, **more: object) -> bool:
        told.append(1)
        if len(told) == 4:
            cause = OperationalError("UPDATE trials", {}, Exception("database or disk is full"))
            raise StorageInternalError("An exception is raised during the commit.") from cause
        return written(self, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(RDBStorage, "set_trial_state_values", full)
    with pytest.raises(UserError, match=r"^the storage of the study failed: .*database or disk is full$"):
        search_with_optuna(problem, 6, storage=storage, sampler="random")
    assert search_with_optuna(problem, 6, storage=storage, sampler="random", lease=1.0).evaluated == 6


def test_a_sign_of_life_that_cannot_be_written_is_given_again() -> None:
    beats: list[int] = []

    class Trial:
        def set_user_attr(self, key: str, value: int) -> None:
            beats.append(value)
            if value == 1:
                raise StorageInternalError("An exception is raised during the commit.")

    with _Heartbeat(Trial(), 0.001):  # type: ignore[arg-type]
        while len(beats) < 3:
            time.sleep(0.001)
    assert beats[:3] == [1, 2, 3]


def test_a_task_queued_twice_counts_once() -> None:
    study = study_in()
    shared = SharedStudy(study, 1)
    first = shared.claim()
    assert first is not None
    shared._fail(first.number)
    for _ in range(2):
        study.enqueue_trial({}, {"task": first.number})
    again = shared.claim()
    assert again is not None and shared.claim() is None
    assert shared.finish(again, [1.0], {}) and len(shared.results()) == 1


def test_surplus_trials_stand_for_no_task() -> None:
    study = study_in()
    shared = SharedStudy(study, 1)
    surplus = [study.ask() for _ in range(3)]
    assert shared.finish(surplus[0], [0.0], {}) and shared.claim() is None
    assert not shared._needed(surplus[2]) and shared.unfinished() == 0


def test_an_error_is_raised_and_tried_again_a_few_times() -> None:
    shared = SharedStudy(study_in(), 2, attempts=2)

    def broken(trial: optuna.Trial) -> tuple[list[float], dict]:
        raise RuntimeError("no network")

    for _ in range(4):
        with pytest.raises(RuntimeError, match="no network"):
            shared.work(broken)
    assert shared.work(broken) == 0 and shared.unfinished() == 0 and shared.results() == []


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "random"])
def test_samplers_find_networks_inside_the_budget(sampler: str) -> None:
    table = LatencyTable.load("t4_tensorrt_fp16")
    problem = GeneProblem(
        SPACES["tinynas_k1kx"], Objective(Entropy(), table, Frame()), Budget.of({"latency_ms": 2.6, "flops_g": 26.0})
    )
    outcome = search_with_optuna(problem, 60, seed=1, sampler=sampler, population=20)
    assert outcome.best is not None and problem.budget.admits(outcome.best.metrics) and outcome.evaluated == 60
    problem.space.check(outcome.best.spec)  # type: ignore[arg-type]
    again = search_with_optuna(problem, 60, seed=1, sampler=sampler, population=20)
    assert [c.digest for c in again.front] == [c.digest for c in outcome.front]


def test_a_study_is_shared_and_continued_by_name(tmp_path: Path) -> None:
    table = LatencyTable.load("t4_tensorrt_fp16")
    problem = GeneProblem(SPACES["tinynas_k1kx"], Objective(Entropy(), table, Frame()), Budget.of({"latency_ms": 3.0}))
    storage = f"journal:{tmp_path / 'deep' / 'study.log'}"
    first = search_with_optuna(problem, 10, storage=storage, identity="a")
    second = search_with_optuna(problem, 14, storage=storage, identity="a", seed=5)
    np_first, np_second = first.history.column("score"), second.history.column("score")
    assert (np_second[:10] == np_first).all() and second.evaluated == 14
    with pytest.raises(UserError, match="another search"):
        search_with_optuna(problem, 10, storage=storage, identity="b")


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "random"])
def test_a_continued_study_is_the_straight_one(sampler: str, tmp_path: Path) -> None:
    table = LatencyTable.load("t4_tensorrt_fp16")
    problem = GeneProblem(SPACES["tinynas_k1kx"], Objective(Entropy(), table, Frame()), Budget.of({"latency_ms": 3.0}))
    options = {"seed": 3, "sampler": sampler, "population": 6}
    straight = search_with_optuna(problem, 24, **options)  # type: ignore[arg-type]
    storage = f"journal:{tmp_path / 'study.log'}"
    for evaluations in (9, 24):
        continued = search_with_optuna(problem, evaluations, storage=storage, **options)  # type: ignore[arg-type]
    assert (continued.history.matrix() == straight.history.matrix()).all()
    assert len({tuple(row) for row in straight.history.matrix()}) > 20


def test_storages_that_cannot_be_opened_give_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.md").write_text("# no journal\n\nat all\n")
    for url in (
        f"journal:{tmp_path}/text.md",
        "nonsense",
        "sqlite:////no/such/folder/x.db",
        "postgresql://nobody@127.0.0.1:1/none",
    ):
        with pytest.raises(UserError) as error:
            open_storage(url)
        assert "\n" not in str(error.value)
