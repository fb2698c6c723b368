"""Successive halving on made-up learning curves: who goes on, and that workers and deaths change nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest
from optuna.trial import TrialState

from nas.searchers.optuna import open_storage
from nas.selection.halving import Halving, RungResult, Standing, kept_of, ranked
from nas.selection.portfolio import Finalist
from nas.selection.rungs import make_plan
from nas.spec import DetectorSpec
from search_spaces.published import load_published

SPEC = load_published("damo-yolo-t")


def finalists(count: int) -> tuple[Finalist, ...]:
    assert isinstance(SPEC, DetectorSpec)
    return tuple(
        Finalist(f"n{i}", "drawn" if i % 4 == 3 else "searched", "", "", SPEC, f"{i:016x}", {"latency_ms": 1.0})
        for i in range(count)
    )


def curve(finalist: Finalist, seed: int, epochs: int) -> tuple[float, float]:
    """AP that grows with the epochs, to a height of the finalist's own."""
    height = Random(f"{finalist.digest} {seed}").random()
    return height * epochs / (epochs + 3), height


def run(storage: str | None, train=curve, lease: float = 30.0, count: int = 12, seeds: int = 2) -> list[RungResult]:
    plan = make_plan(count, 18, seeds=seeds)
    opened = open_storage(storage) if storage else None
    return Halving(plan, opened, "test", 0, lease, train).run(finalists(count))


def test_the_best_go_on_and_the_best_drawn_one_with_them() -> None:
    results = run(None)
    assert [result.epochs for result in results] == [2, 6, 18]
    first = sorted(results[0].standings, key=lambda standing: -standing.ap)
    expected = {standing.finalist.name for standing in first[:4]}
    drawn = next(standing.finalist.name for standing in first if standing.finalist.origin == "drawn")
    assert {finalist.name for finalist in results[0].kept} == expected | {drawn}
    for result in results:
        assert any(finalist.origin == "drawn" for finalist in result.kept)
    last = results[-1]
    assert len(last.standings) == 2 * len(results[1].kept) and {s.seed for s in last.standings} == {0, 1}
    means = [sum(s.best for s in last.standings if s.finalist == f) / 2 for f in last.kept]
    assert means == sorted(means, reverse=True)
    assert means[0] >= max(mean for mean, f in zip(means, last.kept, strict=True) if f.origin == "drawn")


def test_ties_go_to_the_first() -> None:
    standings = [Standing(finalist, 0, 1, 0.5, 0.5) for finalist in finalists(8)]
    assert [finalist.name for finalist in kept_of(standings, 3)] == ["n0", "n1", "n2", "n3"]
    assert [finalist.name for finalist in ranked(standings)] == [f"n{i}" for i in range(8)]


def test_two_workers_share_the_trainings_and_agree_with_one(tmp_path: Path) -> None:
    url, done, found = f"sqlite:///{tmp_path / 'study.db'}", list[tuple[str, int, int]](), list[list[RungResult]]()

    def counted(finalist: Finalist, seed: int, epochs: int) -> tuple[float, float]:
        done.append((finalist.name, seed, epochs))
        return curve(finalist, seed, epochs)

    def work() -> None:
        found.append(run(url, counted))

    open_storage(url)  # the command makes it before its workers start
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] == run(None)
    assert len(done) == len(set(done)) == sum(len(result.standings) for result in found[0])


DYING = """
import os, sys
sys.path.insert(0, {folder!r})
import test_halving as t
def train(finalist, seed, epochs):
    if (finalist.name, epochs) == ("n5", 2):
        os.kill(os.getpid(), 9)
    return t.curve(finalist, seed, epochs)
t.run({url!r}, train)
"""


@pytest.mark.parametrize("released", [True, False])
def test_a_killed_worker_loses_nothing(tmp_path: Path, released: bool) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    code = DYING.format(folder=str(Path(__file__).parent), url=url)
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    halving = Halving(make_plan(12, 18, seeds=2), open_storage(url), "test", 0, 1.0, curve)
    assert any(trial.state == TrialState.RUNNING for trial in halving._study(0).get_trials())
    if released:  # at once, instead of when its lease ends
        halving.release()
        assert not any(trial.state == TrialState.RUNNING for trial in halving._study(0).get_trials())
    assert halving.run(finalists(12)) == run(None)


def test_an_interrupted_training_is_taken_up_again() -> None:
    stopped: list[int] = []

    def train(finalist: Finalist, seed: int, epochs: int) -> tuple[float, float]:
        if finalist.name == "n3" and not stopped:
            stopped.append(epochs)
            raise KeyboardInterrupt
        return curve(finalist, seed, epochs)

    halving = Halving(make_plan(12, 18, seeds=2), None, "test", 0, 30.0, train)
    with pytest.raises(KeyboardInterrupt):
        halving.run(finalists(12))
    assert halving.run(finalists(12)) == run(None)
