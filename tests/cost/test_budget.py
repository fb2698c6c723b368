"""Limits: what is inside, what binds, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nas.cost.budget import Budget
from nas.errors import UserError

METRICS = {"latency_ms": 2.99, "layers": 25.0, "params_m": 9.0}


def test_a_value_equal_to_its_limit_is_inside() -> None:
    assert Budget.of({"layers": 25}).admits(METRICS)
    assert not Budget.of({"layers": 24}).admits(METRICS)


def test_every_limit_counts() -> None:
    assert not Budget.of({"latency_ms": 3, "params_m": 8}).admits(METRICS)
    assert Budget.of({"latency_ms": 3, "params_m": 9}).admits(METRICS)


def test_binding_limits_are_those_used_up() -> None:
    budget = Budget.of({"latency_ms": 3, "layers": 30, "params_m": 9})
    assert budget.binding(METRICS) == ["latency_ms", "params_m"]
    assert budget.use(METRICS)["layers"] == pytest.approx(25 / 30)
    assert budget["latency_ms"] == 3 and budget["flops_g"] == math.inf


@pytest.mark.parametrize(
    ("limits", "words"),
    [({}, "at least one"), ({"speed": 3}, "unknown budget metric 'speed'"), ({"layers": 0}, "a number above 0"),
     ({"layers": math.nan}, "a number above 0"), ({"layers": True}, "a number above 0"),
     ({"latency_ms": "3"}, "a number above 0"), ({"latency_ms": 10**400}, "a number above 0")],
)  # fmt: skip
def test_senseless_budgets_are_refused(limits: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Budget.of(limits)


def test_the_numbers_of_numpy_are_numbers() -> None:
    limits = {"latency_ms": np.float32(2.5), "layers": np.int64(25), "params_m": np.float64(8)}
    budget = Budget.of(limits)
    assert budget == Budget.of({"latency_ms": 2.5, "layers": 25, "params_m": 8})
    assert all(type(limit) is float for _, limit in budget.limits)
    for senseless in (np.float64("nan"), np.bool_(True), np.int64(-1), np.array([3.0])):
        with pytest.raises(UserError, match="a number above 0"):
            Budget.of({"layers": senseless})
