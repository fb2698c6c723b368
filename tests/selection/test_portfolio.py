"""Who is proposed: inside the budget, equally fast, different in shape, drawn ones among them; the same every time."""

from __future__ import annotations

from dataclasses import replace

import pytest

import nas
from nas.cost.budget import Budget
from nas.errors import UserError
from nas.frame import Frame
from nas.selection import portfolio
from nas.selection.portfolio import Proposal, level_profile, unlike
from search_spaces.drawings import hand_drawn, scaled

FRAME = Frame(out=(64, 128, 256), depth=2, hidden_ratio=(0.5, 0.5, 0.5), num_classes=6, image_size=640)
PROPOSAL = Proposal(Budget.of({"latency_ms": 3.0}), "t4_tensorrt_fp16", FRAME, candidates=7, evaluations=300)


@pytest.fixture(autouse=True)
def few_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        portfolio, "SEARCHED", (("tinynas_k1kx", "effective_rank"), ("gelan", "mae"), ("giraffe", "mae_neck"))
    )


@pytest.mark.slow
def test_finalists_use_the_budget_up_and_differ() -> None:
    found = PROPOSAL.finalists()
    assert len(found) == 7 and len({finalist.digest for finalist in found}) == 7
    assert sum(finalist.origin == "drawn" for finalist in found) >= 2
    assert {finalist.space for finalist in found} >= {"", "gelan", "giraffe"}
    for finalist in found:
        assert finalist.metrics["latency_ms"] == pytest.approx(float(nas.latency(finalist.spec)), rel=1e-9)
        assert 3.0 * 0.97 <= finalist.metrics["latency_ms"] <= 3.0
        assert finalist.spec.head.num_classes == 6 and finalist.spec.image_size == 640
    assert all(unlike(a.spec, b.spec) for a in found for b in found if a is not b)
    assert PROPOSAL.finalists() == found


@pytest.mark.slow
def test_other_limits_hold_too() -> None:
    budget = Budget.of({"latency_ms": 3.0, "params_m": 4, "peak_memory_mb": 100})
    for finalist in replace(PROPOSAL, budget=budget, candidates=4).finalists():
        assert budget.admits(finalist.metrics)


@pytest.mark.slow
def test_ranges_parts_and_other_devices_hold_in_a_selection() -> None:
    limits = {"latency_ms": 3.0, "params_m": [4, 9], "latency_ms@cpu_onnxruntime_fp32_1thread": 400, "flops_g.neck": 9}
    budget = Budget.of(limits)
    for finalist in replace(PROPOSAL, budget=budget, candidates=4).finalists():
        assert budget.admits(finalist.metrics) and 4 <= finalist.metrics["params_m"] <= 9
    with pytest.raises(UserError, match="params_m >= 4 has no upper limit"):
        replace(PROPOSAL, budget=Budget.of({"params_m": [4, None]})).finalists()


def test_shapes_that_differ_by_a_hair_are_one() -> None:
    backbone = hand_drawn()["damo-t"]
    one, close, other = (FRAME.detector(scaled(backbone, factor)) for factor in (1.0, 1.01, 1.3))
    assert not unlike(one, close) and unlike(one, other)
    assert unlike(one, FRAME.detector(hand_drawn()["resnet18"]))
    assert sum(count for count, _ in level_profile(backbone, 640)) >= 19


def test_a_budget_that_no_drawing_reaches_is_refused() -> None:
    with pytest.raises(UserError, match="no drawn network can be scaled to latency_ms <= 0.01"):
        replace(PROPOSAL, budget=Budget.of({"latency_ms": 0.01})).finalists()
