"""Costly scores in a search: one number a network in every process, none computed twice, the same result after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import nas
from nas.cost.budget import Budget
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.scorers.score_log import ScoreLog, read_scores
from nas.searchers.catalog import make_problem
from nas.searchers.problem.specs import SpecProblem
from nas.searchers.run import SearchResult
from nas.spec import Spec, digest
from search_spaces import find_space

ROOT = Path(__file__).resolve().parents[3]
SPACE = find_space("tinynas_k1kx", channels=((8, 16), (8, 16), (16, 24), (16, 24), (24, 32)), depths=(1, 2, 2, 2, 1),
                   stem_channels=(8, 8), max_layers=19)  # fmt: skip
CALLS: list[Spec] = []


def depth_per_parameter(spec: Spec) -> float:
    """A score of one's own, with the last digits that a file must keep."""
    CALLS.append(spec)
    counts = nas.count(spec)
    return counts.layers / counts.params**0.37


def found(scorer: Any, evaluations: int, searcher: str = "evolution", **more: Any) -> SearchResult:
    options: dict[str, Any] = {"population": 16} if searcher != "random" else {"batch": 16}
    if scorer == "zico":
        more["scorer_options"] = {"image_size": 32, "batch": 4}
    return nas.find({"latency_ms": 3.0}, SPACE, neck="nano", image_size=32, scorer=scorer, searcher=searcher,
                    searcher_options=options, evaluations=evaluations, **more)  # fmt: skip


def digits(result: SearchResult) -> list[Any]:
    """Everything that a search found, to the last bit."""
    return [result.outcome.history.matrix().tobytes(), [(c.digest, c.score.hex()) for c in result.front]]


def killed(scorer: str, evaluations: int, state: Path, after: int) -> None:
    """A search in another process, killed once it has scored `after` networks."""
    name = "'zico'" if scorer == "zico" else "t.depth_per_parameter"
    code = "import pathlib, tests.searchers.problem.test_costly_scores as t; "
    code += f"t.found({name}, {evaluations}, state=pathlib.Path({str(state)!r}), workers=1)"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    scores = state.with_suffix(".scores.jsonl")
    while process.poll() is None and not (scores.exists() and scores.read_text().count("\n") > after):
        time.sleep(0.01)
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("scorer", "evaluations"), [pytest.param("zico", 20, marks=pytest.mark.slow), (depth_per_parameter, 60)]
)
@pytest.mark.filterwarnings("ignore::nas.errors.Caution")
def test_workers_and_kills_change_no_digit(scorer: Any, evaluations: int, tmp_path: Path) -> None:
    straight = digits(found(scorer, evaluations))
    assert digits(found(scorer, evaluations, workers=2)) == straight
    killed("zico" if scorer == "zico" else "own", evaluations, tmp_path / "state.npz", 9)
    assert (tmp_path / "state.scores.jsonl").read_text().count("\n") > 9
    assert digits(found(scorer, evaluations, state=tmp_path / "state.npz")) == straight


@pytest.mark.parametrize("searcher", ["evolution", "nsga2", "random", "optuna"])
@pytest.mark.filterwarnings("ignore::nas.errors.Caution")
def test_every_searcher_scores_a_network_once_and_goes_on_from_the_file(searcher: str, tmp_path: Path) -> None:
    CALLS.clear()
    straight = digits(found(depth_per_parameter, 60, searcher))
    assert len(CALLS) == len({digest(spec) for spec in CALLS}) > 30
    first = tmp_path / "s.npz"
    found(depth_per_parameter, 40, searcher, state=first)
    before = len(first.with_suffix(".scores.jsonl").read_text().splitlines()) - 1
    CALLS.clear()
    assert digits(found(depth_per_parameter, 60, searcher, state=first)) == straight
    after = len(first.with_suffix(".scores.jsonl").read_text().splitlines()) - 1
    assert len(CALLS) == after - before > 0


@pytest.mark.filterwarnings("ignore::nas.errors.Caution")
def test_optuna_asks_for_a_generation_at_a_time_whatever_the_workers() -> None:
    assert digits(found(depth_per_parameter, 40, "optuna")) == digits(
        found(depth_per_parameter, 40, "optuna", workers=3)
    )


def test_a_score_log_is_exact_whole_and_its_own(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"

    def opened(search: str) -> ScoreLog:
        return ScoreLog(path, {"search": search}, exact=True, remedy="resume it as it was started")

    kept = opened("mine")
    values = {"a": 0.1 + 0.2, "b": float("-inf"), "c": 1e300 / 7}
    for name, score in values.items():
        kept.add(name, 0, {"score": score}, {})
    path.write_text(path.read_text() + '{"network": "d", "scores": 1.')  # what a kill leaves
    assert not opened("mine").missing("c", 0, ("score",)) and path.read_text().endswith("\n")
    assert {network: scores["score"] for network, _, scores, _ in read_scores(path)} == values
    with pytest.raises(UserError, match="was made with search=mine, now search=other: resume it as it was started"):
        opened("other")
    path.write_text(path.read_text() + "[1]\n")
    with pytest.raises(UserError, match="line 5 is damaged"):
        opened("mine")


def test_cheap_scores_are_not_kept(tmp_path: Path) -> None:
    table = LatencyTable.load("t4_tensorrt_fp16")
    problem = make_problem(find_space("gelan"), Budget.of({"latency_ms": 3}), "mae", {}, table, None, 640)
    assert isinstance(problem, SpecProblem)
    problem.remember(tmp_path / "scores.jsonl", "mine")
    problem.evaluate(problem.initial())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("scorer", "options", "words"),
    [("aznas", {}, "take one of az_expressivity, az_progressivity"), ("zico", {"batch": 0}, "scorer.batch must be"),
     ("zico", {"batchs": 4}, "scorer zico has no option 'batchs'; did you mean batches"), ("mae", {"batch": 4}, "no option"),
     ("zico", {"image_size": 33}, "multiple of 32")],
)  # fmt: skip
def test_what_cannot_be_scored_is_told(scorer: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        nas.find({"latency_ms": 3.0}, SPACE, scorer=scorer, scorer_options=options, searcher="random", evaluations=2)


@pytest.mark.filterwarnings("ignore::nas.errors.Caution")
def test_workers_end_with_a_killed_search(tmp_path: Path) -> None:
    code = "import tests.searchers.problem.test_costly_scores as t\n"
    code += f"if __name__ == '__main__': t.found(t.depth_per_parameter, 10**6, state={str(tmp_path / 's.npz')!r}, workers=2)"
    (tmp_path / "run.py").write_text(code)
    process = subprocess.Popen([sys.executable, "-W", "ignore", str(tmp_path / "run.py")], cwd=ROOT,
                               env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True)  # fmt: skip
    scores = tmp_path / "s.scores.jsonl"
    while process.poll() is None and not (scores.exists() and scores.read_text().count("\n") > 3):
        time.sleep(0.05)
    process.kill()
    process.wait()
    for _ in range(200):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("workers of a killed search are still there")
