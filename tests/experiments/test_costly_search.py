"""Costly searches on one worker, on two, and killed: the same bytes, and an experiment that would notice others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from experiments.costly_search import __main__ as costly
from experiments.costly_search import runs
from experiments.costly_search.__main__ import HERE, main, moments, read_rows, report
from experiments.costly_search.runs import FILES, SCORERS, Spent, scored, search
from experiments.page import read_part
from nas.errors import UserError


def test_kills_are_drawn_by_the_seed_between_the_scores() -> None:
    drawn = [moments("own", 40, 3, seed) for seed in range(20)]
    assert drawn == [moments("own", 40, 3, seed) for seed in range(20)] and len({*map(tuple, drawn)}) == 20
    assert all(0 < first < second < third < 40 for first, second, third in drawn)
    assert moments("own", 4, 3, 0) == [1, 2, 3]
    with pytest.raises(UserError, match="kills must be from 1 to 3 in a search of 4 scores, got 4"):
        moments("own", 4, 4, 0)


def test_the_command_goes_on_and_names_the_bytes_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, int, int]] = []

    def quickly(folder: Path, scorer: str, evaluations: int, seed: int, workers: int, when: Sequence[int]) -> Spent:
        started.append((scorer, workers, len(when)))
        if started.count(("own", 2, 0)) == 1 and started[-1] == ("own", 2, 0):
            raise UserError("no memory left")
        return Spent(1.5, 2.5, tuple(when), (0,) * len(when))

    def left(folder: Path) -> dict[str, str]:
        return dict.fromkeys(FILES, "a") | (
            {"trace.csv": "b"} if folder.name.endswith("own-9-seed4-workers2-kills2") else {}
        )

    for name, stand_in in (("search", quickly), ("digests", left), ("evaluated", lambda f: 9), ("scored", lambda f: 7)):
        monkeypatch.setattr(costly, name, stand_in)
    words = [f"folder={tmp_path}", "evaluations=9", "kills=2", "seed=4"]
    with pytest.raises(UserError, match="no memory left"):
        main(words)
    with pytest.raises(UserError, match=r"1 of 6 runs left other bytes: own workers=2 kills=2: not trace\.csv"):
        main(words)
    assert started == [
        ("zico", 1, 0),
        ("zico", 2, 0),
        ("zico", 2, 2),
        ("own", 1, 0),
        ("own", 2, 0),
        ("own", 2, 0),
        ("own", 2, 2),
    ]
    page = read_part(tmp_path / "README.md", "runs")
    assert page == report(read_rows(tmp_path / "runs.csv")) and page.startswith(
        "3 of 4 searches on two workers, 4 kills among"
    )
    when = " ".join(map(str, moments("own", 7, 2, 4)))
    assert f"| own | 2 | 9 | 7 | {when} | 0 0 | 1.5 | 2.5 | a | a | not trace.csv |" in page
    with pytest.raises(UserError, match="scorers=mae: known are zico, own"):
        main(["scorers=mae"])


def test_a_search_that_ends_before_its_kill_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "SEARCH", ("evaluation=1",))
    with pytest.raises(UserError, match="run ended with status 1 before it could be killed at 5 scores"):
        search(tmp_path / "run", "own", 9, 0, 1, [5])
    assert "error: " in (tmp_path / "run/printed.txt").read_text() and scored(tmp_path / "run") == 0


@pytest.mark.slow
def test_a_function_of_ones_own_is_searched_to_the_same_bytes(tmp_path: Path) -> None:
    main(["scorers=own", "evaluations=40", "kills=1", f"runs={tmp_path / 'runs'}", f"folder={tmp_path}"])
    alone, _, killed = rows = read_rows(tmp_path / "runs.csv")
    assert [row["evaluated"] for row in rows] == ["40"] * 3 and 20 < int(alone["scored"]) < 40
    assert 0 < int(killed["killed_at"]) < int(alone["scored"]) and killed["saved"] == "0"
    assert all({row[name] for row in rows} == {alone[name]} for name in FILES)


@pytest.mark.benchmark
def test_two_thousand_candidates(tmp_path: Path) -> None:
    main([f"runs={tmp_path / 'runs'}", f"folder={tmp_path}"])
    assert_equal(tmp_path)


def test_what_is_committed_is_equal_and_what_the_page_says() -> None:
    assert_equal(HERE)
    assert read_part(HERE / "README.md", "runs") == report(read_rows(HERE / "runs.csv"))


def assert_equal(folder: Path) -> None:
    """Two thousand candidates of each scorer left the same files three times, one of them after three kills."""
    rows = read_rows(folder / "runs.csv")
    assert [row["scorer"] for row in rows] == [name for name in SCORERS for _ in range(3)]
    for alone, pair, killed in (rows[:3], rows[3:]):
        assert [(row["workers"], row["kills"]) for row in (alone, pair, killed)] == [("1", "0"), ("2", "0"), ("2", "3")]
        for row in (alone, pair, killed):
            assert row["evaluated"] == "2000" and row["scored"] == alone["scored"]
            assert all(row[name] == alone[name] and len(row[name]) == 12 for name in FILES)
        when = [0, *map(int, killed["killed_at"].split()), int(alone["scored"])]
        assert len(when) == 5 and all(before < after for before, after in pairwise(when))
    assert len({row["best.yaml"] for row in rows}) == len(SCORERS)
