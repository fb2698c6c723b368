"""Searchers side by side: problems with an optimum, rows that are kept, and what the page makes of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from experiments.page import read_part
from experiments.searchers import __main__ as command
from experiments.searchers.__main__ import COLUMNS, HERE, OPTIONS, main, missing, read_rows, searched
from experiments.searchers.problems import CASES, Case
from experiments.searchers.report import curve_of, draw, table
from nas.errors import UserError
from nas.searchers.catalog import check_searcher


def row(**values: str) -> dict[str, str]:
    return {name: values.get(name, "") for name in COLUMNS}


def test_there_are_five_problems_and_four_searchers_with_real_options() -> None:
    assert len(CASES) == 5 and list(OPTIONS) == ["random", "evolution", "nsga2", "optuna"]
    for searcher, options in OPTIONS.items():
        check_searcher(searcher, options)


def test_exact_first_then_seed_by_seed() -> None:
    first, second = list(CASES)[:2]
    wanted = missing([row(case=first, searcher="exact", seed="0")], [first, second], 2)
    assert wanted[0] == (second, "exact", 0) and wanted[1:3] == [(first, "random", 0), (first, "evolution", 0)]
    assert len(wanted) == 1 + 2 * 2 * 4 and all(seed == 0 for _, _, seed in wanted[:9])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    """One case of a few thousand networks, in the place of the first."""
    from nas.cost.budget import Budget
    from nas.cost.latency import LatencyTable
    from nas.searchers.base import Problem
    from nas.searchers.catalog import make_problem
    from search_spaces import find_space

    limits = {"channels": ((8, 24), (64, 72), (64, 72), (128, 136), (256, 264)), "depths": (1, 2, 1, 2, 1)}
    space = find_space("tinynas_k1kx", stem_channels=(16, 16), **limits)
    table = LatencyTable.load("t4_tensorrt_fp16")

    def problem(case: Case) -> Problem:
        return make_problem(space, Budget.of({"params_m": 1.2}), "mae", {}, table, None, 320)

    monkeypatch.setattr(Case, "problem", problem)
    return next(iter(CASES))


def test_the_command_goes_on_and_writes_page_and_picture(small: str, tmp_path: Path) -> None:
    words = [f"cases={small}", "seeds=2", "evaluations=300", "trials=20", f"folder={tmp_path}"]
    main([*words, "most=4"])
    before = read_rows(tmp_path / "runs.csv")
    assert [r["searcher"] for r in before] == ["exact", "random", "evolution", "nsga2"]
    main(words)
    rows = read_rows(tmp_path / "runs.csv")
    assert rows[:4] == before and len(rows) == 9
    optimum = float(rows[0]["best"])
    for each in rows[1:]:
        assert float(each["best"]) <= optimum + 1e-6 and int(each["evaluations"]) in (20, 300)
        assert bool(each["evaluations_to_1"]) == (float(each["best"]) >= 0.99 * optimum - 1e-6)
        points = [point.split(":") for point in each["curve"].split(";")]
        assert (np.diff([float(best) for _, best in points]) >= 0).all()
    assert read_part(tmp_path / "README.md", "searchers") == table(rows)
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    with pytest.raises(UserError, match="cases=nope: known are"):
        main(["cases=nope"])


def test_a_run_repeats_from_its_seed(small: str) -> None:
    first, again, other = (searched(small, "evolution", seed, 300, 1e9) for seed in (0, 0, 1))
    assert first["curve"] == again["curve"] != other["curve"] and not first["seconds_to_1"]


def test_medians_and_intervals_are_over_all_runs(tmp_path: Path) -> None:
    case = next(iter(CASES))
    rows = [row(case=case, searcher="exact", best="100", optimum="100.5", seconds="2", seconds_to_1="2")]
    for seed, (best, close, curve) in enumerate(
        [("98", "", "10:50;20:98"), ("100", "40", "20:99.5"), ("99", "60", "10:70;20:99")]
    ):
        rows.append(row(case=case, searcher="random", seed=str(seed), evaluations="100", best=best, curve=curve, seconds="3",
                        evaluations_to_1=close, seconds_to_1="1" if close else ""))  # fmt: skip
    lines = table(rows).splitlines()
    assert lines[2].startswith(f"| {case} | random | 3 | 100 | 99.00 ± 2.48 | 2 of 3 | 60 | 1.0 | 3.0 |")
    assert lines[3].startswith(f"| {case} | exact | 1 |  | 100 (proved: 5e-01 below its bound) | 1 of 1 |")
    (point,) = curve_of(rows[1:], 100.0)
    assert point[0] == 20 and point[1] == pytest.approx(98.833, abs=1e-3) and not math.isnan(point[2])
    assert draw(rows, tmp_path / "curves.png").exists()


def test_what_is_committed_is_what_the_page_says() -> None:
    rows = read_rows(HERE / "runs.csv")
    assert {r["case"] for r in rows if r["searcher"] == "exact"} == set(CASES)
    assert all(set(r) == set(COLUMNS) and r["seed"] and r["commit"] and r["machine"] for r in rows)
    optimum = {r["case"]: float(r["optimum"]) for r in rows if r["searcher"] == "exact"}
    assert all(float(r["best"]) <= optimum[r["case"]] + 1e-6 for r in rows if r["best"])
    assert read_part(HERE / "README.md", "searchers") == table(rows)
    assert command.HERE == HERE
