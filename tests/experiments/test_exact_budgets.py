"""Exact search against evolution on every named budget: what is committed keeps what is promised."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from experiments.exact_search.budgets import COLUMNS, NECKS, TARGET, evolve, problem_of
from nas.errors import UserError
from nas.files import config_folder


def test_every_budget_is_proved_within_a_minute_and_never_beaten_by_evolution() -> None:
    with TARGET.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert {row["budget"] for row in rows} == {path.stem for path in (Path(config_folder()) / "budget").glob("*.yaml")}
    for row in rows:
        exact, upper, evolution = float(row["exact"]), float(row["upper"]), float(row["evolution"])
        assert exact >= evolution - 1e-6 and upper - exact <= 0.05, row["budget"]
        assert float(row["exact_seconds"]) < 60, row["budget"]
        assert float(row["evolution_seconds"]) >= 10 * float(row["exact_seconds"]) - 1, row["budget"]
        assert row["neck"] in NECKS


def test_evolution_ends_when_its_time_is_over() -> None:
    outcome, seconds = evolve(problem_of("layers_20", "nano"), 0.0, 0)
    assert outcome.interrupted and outcome.best is not None and outcome.best.score > 0
    assert outcome.evaluated < 100_000 and seconds > 0


def test_an_unknown_budget_is_named() -> None:
    with pytest.raises(UserError, match="budget/nope"):
        problem_of("nope", "s")
