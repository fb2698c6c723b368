"""The default search: what evolution found and what exact search proves, in one result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nas.cost.budget import Budget
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.frame import Frame
from nas.searchers.catalog import make_problem, search_with
from nas.searchers.exact import proof
from nas.searchers.problem.vectorized import GeneProblem
from search_spaces import find_space

LIMITS = dict(
    channels=((8, 24), (64, 72), (64, 72), (128, 136), (256, 264)), depths=(1, 2, 1, 2, 1), stem_channels=(16, 16)
)


def problem() -> GeneProblem:
    space = find_space("tinynas_k1kx", **LIMITS)
    table = LatencyTable.load("t4_tensorrt_fp16")
    made = make_problem(space, Budget.of({"latency_ms": 2.0}), "mae", {}, table, Frame(), 640)
    assert isinstance(made, GeneProblem)
    return made


def test_a_short_evolution_still_ends_at_the_proven_optimum():
    exact = search_with("exact", {}, problem(), 1)
    few = search_with("evolution", {"population": 8, "batch": 16}, problem(), 48)
    both = search_with("auto", {"population": 8, "batch": 16}, problem(), 48)
    assert few.best.score < exact.best.score
    assert both.best.digest == exact.best.digest == both.front[0].digest
    assert both.certificate.gap_of(few.best.score) >= exact.best.score - few.best.score
    assert both.evaluated == 48 < len(both.history) and not both.interrupted
    points = np.array([(-c.score, c.metrics["latency_ms"]) for c in both.front])
    assert (np.diff(points[:, 0]) > 0).all() and (np.diff(points[:, 1]) < 0).all()


def test_ctrl_c_in_the_proof_keeps_the_evolution_and_resumes(tmp_path: Path, monkeypatch):
    def give_up(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    state, options = tmp_path / "state.npz", {"population": 16, "batch": 32}
    with monkeypatch.context() as patched:
        patched.setattr(proof, "exact_search_of", lambda problem: give_up)
        stopped = search_with("auto", options, problem(), 200, state=state, identity="a")
    assert stopped.interrupted and stopped.evaluated == 200 and stopped.certificate is None
    resumed = search_with("auto", options, problem(), 200, state=state, identity="a")
    straight = search_with("auto", options, problem(), 200)
    assert resumed.certificate is not None
    assert [c.digest for c in resumed.front] == [c.digest for c in straight.front]
    assert np.array_equal(resumed.history.matrix(), straight.history.matrix())


def test_without_a_sum_over_blocks_the_reason_is_told(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise UserError("rho is no sum over blocks")

    monkeypatch.setattr(proof, "exact_search_of", lambda problem: refuse)
    outcome = search_with("auto", {"population": 16, "batch": 32}, problem(), 100)
    assert outcome.unproven == "rho is no sum over blocks" and outcome.best is not None
    assert outcome.evaluated == 100


def test_an_option_of_the_default_search_is_checked():
    with pytest.raises(UserError, match="searcher auto has no option 'size'; it has population"):
        search_with("auto", {"size": 3}, problem(), 10)
