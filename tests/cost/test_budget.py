"""Limits: what is inside, what binds, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nas.cost.budget import Budget, Limited
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
     ({"latency_ms": "3"}, "a number above 0"), ({"latency_ms": 10**400}, "a number above 0"),
     ({"params_m": [5, 2]}, r"\[least, most\].*got \[5, 2\]"), ({"params_m": [None, None]}, "the most, or"),
     ({"params_m": [0, None]}, "the most, or"), ({"params_m": [1, 2, 3]}, "the most, or"),
     ({"params_m": ["a", 2]}, "at least 0"), ({"params_m": [2, math.inf]}, "above 0"),
     ({"params_m.roof": 3}, "no part 'roof'; params_m has stem"), ({"rho.neck": 3}, "rho has none, it is no sum"),
     ({"params_m@abacus": 1}, "the same on every hardware; write params_m"),
     ({"latency_ms": 3, "latency_ms@t4": 2}, "two limits on latency_ms: 3.0 and 2")],
)  # fmt: skip
def test_senseless_budgets_are_refused(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Budget.of(limits, "t4")


def test_the_numbers_of_numpy_are_numbers() -> None:
    limits = {"latency_ms": np.float32(2.5), "layers": np.int64(25), "params_m": np.float64(8)}
    budget = Budget.of(limits)
    assert budget == Budget.of({"latency_ms": 2.5, "layers": 25, "params_m": 8})
    assert all(type(limit) is float for _, limit in budget.limits)
    for senseless in (np.float64("nan"), np.bool_(True), np.int64(-1), np.array([3.0])):
        with pytest.raises(UserError, match="a number above 0"):
            Budget.of({"layers": senseless})


def test_ranges_lower_limits_parts_and_other_devices() -> None:
    budget = Budget.of({"params_m": [2, 5], "layers": (10, None), "latency_ms@cpu": 40, "latency_ms@t4": [0, 3]}, "t4")
    assert str(budget) == "latency_ms <= 3, latency_ms@cpu <= 40, layers >= 10, 2 <= params_m <= 5"
    assert Budget.of(budget.to_dict()) == budget and budget["layers"] == math.inf and budget["params_m"] == 5
    inside = {"latency_ms": 3.0, "latency_ms@cpu": 39.9, "layers": 10, "params_m": 2.0}
    assert budget.admits(inside) and budget.binding(inside) == ["latency_ms", "latency_ms@cpu", "layers", "params_m"]
    assert set(budget.use(inside)) == {"latency_ms", "latency_ms@cpu", "params_m"}
    for name, value in (("params_m", 1.9), ("params_m", 5.1), ("layers", 9), ("latency_ms@cpu", 41)):
        assert not budget.admits(inside | {name: value})
    # a budget of upper limits is told as it always was: the name of a search depends on it
    assert repr(Budget.of({"layers": 25, "latency_ms": 3})) == "Budget(limits=(('latency_ms', 3.0), ('layers', 25.0)))"
    assert str(Limited.of("latency_ms.neck@my/table.json")) == "latency_ms.neck@my/table.json"
