"""The sweep of evolution's settings: what is run, how the best is chosen, and that other seeds judge it."""

from __future__ import annotations

from pathlib import Path

import yaml

from experiments.page import read_part
from experiments.searchers.problems import CASES as JUDGED
from experiments.tuning.__main__ import COLUMNS, HERE, checks, missing, row_of, sweep
from experiments.tuning.problems import CASES, LONG, SETTINGS, SHIPPED, Run, Setting
from experiments.tuning.report import best_of, part
from nas.files import config_folder, read_rows

GOOD = Setting(64, 0.6, 2_500)


def rows_for(runs: list[Run], gap: dict[Setting, float]) -> list[dict[str, str]]:
    """Rows of runs that end so many percent below an optimum of 100, a hundredth more with every seed."""
    told = {"optimum": "100", "seconds": "0.5", "machine": "one", "commit": "c0ffee"}
    return [
        {name: "" for name in COLUMNS}
        | told
        | {name: str(value) for name, value in run.setting._asdict().items()}
        | {"case": run.case, "seed": str(run.seed), "evaluations": str(run.evaluations)}
        | {"best": f"{100 - gap.get(run.setting, 2.0) - 0.01 * run.seed:.6f}"}
        for run in runs
    ]


def test_problems_are_apart_from_those_that_judge_and_settings_hold_the_shipped_one() -> None:
    judged = {(case.space, case.scorer, *sorted(case.limits.items())) for case in JUDGED.values()}
    assert not judged & {(t.case.space, t.case.scorer, *sorted(t.case.limits.items())) for t in CASES.values()}
    conf = {name: yaml.safe_load((Path(config_folder()) / name).read_text()) for name in
            ("searcher/evolution.yaml", "search.yaml")}  # fmt: skip
    assert SHIPPED._asdict() == {name: conf["searcher/evolution.yaml"][name] for name in Setting._fields}
    assert SHIPPED in SETTINGS and len(SETTINGS) == 18 and conf["search.yaml"]["evaluations"] == LONG


def test_the_best_of_the_sweep_is_judged_by_other_seeds() -> None:
    rows = rows_for(sweep(2), {GOOD: 0.5, SHIPPED: 1.0})
    assert best_of(rows, 2) == GOOD
    left = list(missing(rows, 2, 3))
    assert left == checks(GOOD, range(2, 5)) and {each.seed for each in left} == {2, 3, 4}
    assert len(left) == 3 * 2 * (len(CASES) + sum(case.quick for case in CASES.values()))
    rows += rows_for(left[: len(left) // 3 * 2], {GOOD: 1.25, SHIPPED: 1.0})  # on fresh seeds it is worse
    told = part(rows, 2)
    assert "| 64 | 0.6 | 2,500 | 0.505 | 0.505 | 0.505 | 0.505 ± 0.064 |" in told.splitlines()[2]
    assert "- 0.500 ± 0.000 (2 seeds) in the sweep" in told
    assert "- -0.250 ± 0.000 (2 seeds) with fresh seeds, as long" in told
    assert f"Cost: {len(rows)} runs" in told and "512 (shipped)" in told


def test_the_page_is_made_of_the_rows() -> None:
    assert read_part(HERE / "README.md", "evolution") == part(read_rows(HERE / "sweep.csv"), 5)


def test_without_rows_nothing_is_claimed() -> None:
    assert "not run yet" in part([], 5)


def test_a_run_is_a_row() -> None:
    row = row_of(Run("kxkx latency", GOOD, 3, 300), 1e4)
    assert list(row) == list(COLUMNS) and row["evaluations"] == "300" and row["minor_from"] == "2500"
    assert 0 < float(row["best"]) < 1e4 and row["evaluations_to_01"] == ""
