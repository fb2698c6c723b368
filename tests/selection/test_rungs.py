"""Rungs and what they cost."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import UserError
from nas.options import read_object
from nas.selection.rungs import Plan, Rung, make_plan, plan_of_minutes


def test_sixteen_networks_and_sixty_epochs() -> None:
    plan = make_plan(16, 60)
    assert plan.rungs == (Rung(7, 16), Rung(20, 6), Rung(60, 4))
    assert plan.cost == 16 * 7 + 7 * 13 + 5 * 40 and plan.exhaustive == 960
    assert make_plan(16, 60, seeds=3).cost == plan.cost + 5 * 2 * 60


@given(st.integers(2, 200), st.integers(2, 500), st.floats(2, 10), st.integers(1, 5))
def test_rungs_rise_and_networks_fall(candidates: int, epochs: int, factor: float, seeds: int) -> None:
    plan = make_plan(candidates, epochs, factor, seeds)
    ends, counts = [rung.epochs for rung in plan.rungs], [rung.entrants for rung in plan.rungs]
    assert ends == sorted(set(ends)) and ends[-1] == plan.epochs == epochs
    assert counts == sorted(counts, reverse=True) and counts[0] == candidates and counts[-1] >= 2
    assert read_object(Plan, json.loads(json.dumps(asdict(plan)))) == plan


def test_the_last_rung_holds_a_quarter_and_at_most_four() -> None:
    last = [make_plan(candidates, 30).rungs[-1].entrants for candidates in (2, 4, 6, 9, 12, 16, 100)]
    assert last == [2, 2, 2, 3, 3, 4, 4]


def test_a_longer_first_rung_moves_the_others_closer() -> None:
    assert make_plan(36, 30).rungs == (Rung(3, 36), Rung(10, 12), Rung(30, 4))
    plan = make_plan(36, 30, first=0.2)
    assert plan.rungs == (Rung(6, 36), Rung(13, 12), Rung(30, 4))
    assert plan.cost == 36 * 6 + 13 * 7 + 5 * 17
    assert make_plan(36, 30, first=1.0).cost == 36 * 30


@given(st.integers(2, 40), st.floats(1, 1000), st.floats(0.1, 100))
def test_minutes_are_kept_and_used(candidates: int, minutes: float, seconds: float) -> None:
    least = min(candidates, 6)
    try:
        plan = plan_of_minutes(minutes, seconds, 0.0, candidates)
    except UserError as error:
        assert make_plan(least, 4).cost * seconds > 60 * minutes
        assert "minutes would do" in str(error)
    else:
        networks = plan.rungs[0].entrants
        assert least <= networks <= candidates and plan.cost * seconds <= 60 * minutes
        assert plan.epochs >= 10_000 or make_plan(networks, plan.epochs + 1).cost * seconds > 60 * minutes
        assert plan.rungs[0].epochs >= 3 or networks == least


def test_networks_give_way_to_a_first_rung_that_tells_something() -> None:
    assert plan_of_minutes(60, 10, 0, 16).rungs == (Rung(6, 16), Rung(18, 6), Rung(54, 4))
    assert plan_of_minutes(60, 30, 0, 16).rungs == (Rung(3, 11), Rung(8, 4), Rung(23, 3))  # all sixteen: two epochs
    assert plan_of_minutes(60, 60, 0, 16).rungs == (Rung(3, 9), Rung(10, 3))
    assert plan_of_minutes(10, 20, 0, 16).rungs == (Rung(2, 6), Rung(7, 2))  # never fewer than six


def test_too_few_minutes_say_what_would_fit() -> None:
    with pytest.raises(UserError, match="6 networks.*; 6 minutes would do, or candidates=2,"):
        plan_of_minutes(4, 20, 10, 16)
    with pytest.raises(UserError, match="1 minutes are too few"):
        plan_of_minutes(1, 20, 10, 16)


@pytest.mark.parametrize(
    "stored", [{}, {"rungs": [], "seeds": 1}, {"rungs": [{"epochs": 3, "entrants": 2}] * 2, "seeds": 1}]
)
def test_a_damaged_plan_is_named(stored: dict) -> None:
    with pytest.raises(UserError, match="plan.json lacks rungs|the rungs of a selection must end"):
        read_object(Plan, stored, "plan.json:")
