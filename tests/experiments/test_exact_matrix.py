"""The matrix of exact search: its cells, its limits, its file and page, and twenty committed cells proved again."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from experiments.exact_search import matrix
from experiments.exact_search.cell import (
    CPU_SECONDS,
    MEMORY,
    NOT_SERVED,
    NOTHING,
    PROVED,
    UNPROVED,
    Finding,
    problem_of,
    prove,
    refusal,
)
from experiments.exact_search.matrix import COLUMNS, add_rows, cells, finished_cells, main, measured, row_of
from experiments.page import read_part
from nas.errors import UserError
from search_spaces import space_names

RECORD = matrix.HERE / "matrix.csv"
#: CPU seconds of a committed cell, and of all together, that are proved again.
QUICK, TOGETHER, DRAWN = 3.0, 60.0, 20


def drawn() -> list[dict[str, str]]:
    """Quick proved cells of the record in an order drawn by seed, as many as their recorded seconds allow."""
    quick = [row for row in finished_cells(RECORD).values() if row["state"] in (PROVED, NOTHING)]
    quick = [row for row in quick if float(row["seconds"]) < QUICK]
    Random(0).shuffle(quick)
    seconds = itertools.accumulate(float(row["seconds"]) for row in quick)
    return [row for row, total in zip(quick, seconds, strict=True) if total < TOGETHER][:DRAWN]


@pytest.mark.slow
@pytest.mark.parametrize("row", drawn(), ids=lambda row: f"{row['space']}-{row['score']}-{row['budget']}")
def test_a_committed_cell_is_proved_again(row: dict[str, str]) -> None:
    found = prove(problem_of(row["space"], row["score"], row["budget"]))
    assert found.state == row["state"]
    if row["state"] == PROVED:
        assert found.value == pytest.approx(float(row["value"]), rel=1e-8, abs=2e-6)
        assert found.bound is not None and found.value is not None
        assert found.bound - found.value <= 1e-6 * max(abs(found.value), 1.0)


def test_every_committed_row_keeps_what_the_page_says() -> None:
    rows = finished_cells(RECORD)
    assert set(rows) <= set(cells()) and len(drawn()) == DRAWN
    for cell, row in rows.items():
        if row["state"] == NOT_SERVED:
            assert row["reason"] and not row["value"], cell
            continue
        assert float(row["seconds"]) <= CPU_SECONDS + 1, cell
        assert not row["memory_mb"] or float(row["memory_mb"]) <= MEMORY / 2**20, cell
        assert bool(row["reason"]) == (row["state"] == UNPROVED), cell
        if row["value"] and row["bound"]:
            assert float(row["bound"]) >= float(row["value"]) - 1e-6, cell
        if row["state"] == PROVED:
            assert float(row["gap"]) <= 1e-6 * max(abs(float(row["value"])), 1.0), cell
        assert row["commit"] and row["machine"] and row["seed"]
    assert read_part(matrix.HERE / "README.md", "matrix") == matrix.report(rows).strip()


def test_the_matrix_is_whole() -> None:
    every = cells()
    assert len(every) == len(set(every)) == len(space_names()) * len(matrix.score_names()) * 16
    assert {"mae", "mae_neck", "level_balance", "params", "macs", "layers"} <= set(matrix.score_names())


def test_what_is_not_served_says_why() -> None:
    assert "shortcuts depend on widths" in refusal(problem_of("official_mbv2", "mae_residual", "latency_3ms"))
    assert refusal(problem_of("giraffe", "mae", "latency_3ms")) == ""
    assert refusal(problem_of("giraffe", "mae_neck", "latency_3ms")) == ""
    assert "deepmad is none of the sums" in refusal(problem_of("c3k2", "deepmad", "latency_3ms"))
    assert "a sum over blocks" in refusal(problem_of("official_tiny", "deepmad", "latency_3ms"))
    assert refusal(problem_of("official_tiny", "mae", "latency_3ms")) == ""
    with pytest.raises(UserError, match="no budget 'nope'"):
        problem_of("giraffe", "mae", "nope")


def test_too_little_time_is_unproved_with_a_value() -> None:
    found = prove(problem_of("official_tiny", "mae", "latency_3ms"), seconds=1e-9)
    assert found.state == UNPROVED and "CPU seconds (searcher option seconds) ended it" in found.reason
    assert found.value is not None and 900 < found.value < 1084


def test_rows_are_kept_at_once_and_the_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[tuple[str, str, str]] = []

    def prove_quickly(cell: tuple[str, str, str], seed: int) -> dict[str, str]:
        if len(done) == 3:
            raise UserError("the third one fails")
        done.append(cell)
        return row_of(cell, Finding(PROVED, "", 2.0, 2.5), seed, "1.5", "70")

    monkeypatch.setattr(matrix, "measured", prove_quickly)
    words = [
        f"folder={tmp_path}",
        "spaces=official_tiny,official_mbv2",
        "scores=mae_residual",
        "budgets=layers_20,layers_25,layers_35,layers_45",
    ]
    with pytest.raises(UserError, match="the third one fails"):
        main(words)
    rows = finished_cells(tmp_path / "matrix.csv")
    assert sum(row["state"] == PROVED for row in rows.values()) == 3
    done.clear()
    main([*words, "most=1"])
    assert len(done) == 1 and done[0] not in rows
    rows = finished_cells(tmp_path / "matrix.csv")
    assert list(rows) == [cell for cell in cells() if cell in rows] and len(rows) == 8
    assert {row["gap"] for row in rows.values()} == {"5.0e-01", ""} and set(rows[done[0]]) == set(COLUMNS)
    page = (tmp_path / "README.md").read_text()
    assert (
        f"8 of {len(cells()):,} cells are finished: 4 optima are proved" in page
        and "| 4 not served | in space official_mbv2 shortcuts depend on widths" in page
    )
    assert "| official_tiny | 4 / 0 / 0 | 1.5 | 70 | 5e-01 |" in page
    with pytest.raises(UserError, match="spaces=nope: known are"):
        main(["spaces=nope"])


def test_a_cell_ended_by_the_system_is_unproved(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], -24, "doing pricing\ndoing front\n", "")

    monkeypatch.setattr(subprocess, "run", killed)
    row = measured(("official_tiny", "mae", "layers_20"), 0)
    assert row["state"] == UNPROVED and row["reason"] == "the system ended it at 60 CPU seconds, while front"
    failed = subprocess.CompletedProcess([], 1, "", "error: no such thing\n")
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: failed)
    with pytest.raises(UserError, match="no such thing"):
        measured(("official_tiny", "mae", "layers_20"), 0)


def test_a_cell_is_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "experiments.exact_search.cell", "official_tiny", "layers", "layers_20"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["state"] == PROVED and told["value"] == told["bound"] and 0 < told["seconds"] < CPU_SECONDS
    assert 30 < told["memory_mb"] < 2048


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "matrix.csv"
    for cell in cells()[:3]:
        add_rows(path, [row_of(cell, Finding(NOTHING), 0, "1", "2")])
    assert list(finished_cells(path)) == cells()[:3]
