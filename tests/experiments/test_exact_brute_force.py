"""Exact search against every member of random small parts of every space: a hundred problems, and what is committed."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from experiments.exact_search import brute_force
from experiments.exact_search.brute_force import PER, chain_names, check_space, main, read_rows, report
from experiments.exact_search.matrix import HERE
from experiments.exact_search.small_spaces import LEAST, MOST, members, small_space
from experiments.page import read_part, write_part
from nas.cost.budget import Budget
from nas.errors import UserError
from nas.searchers.catalog import make_problem
from nas.searchers.exact.search import exact_search
from search_spaces import find_space


@pytest.mark.parametrize("name", chain_names())
def test_exact_search_and_brute_force_agree(name: str) -> None:
    row = check_space(name, 0, seed=1, problems=6)
    assert row["wrong"] == 0, row["cases"]
    assert row["proved"] + row["nothing"] == row["problems"] == 6 and row["proved"] > 0


@pytest.mark.parametrize(("name", "score"), [("tinynas_k1kx", "mae_residual"), ("official_mbv2", "level_balance"),
                                             ("gelan", "level_balance"), ("c3k2", "mae_residual"),
                                             ("tinynas_k1kx", "effective_rank"), ("tinynas_k1dwsek1", "effective_rank"),
                                             ("c3k2", "effective_rank"), ("giraffe", "mae_residual"),
                                             ("giraffe_light", "effective_rank"), ("mixed", "effective_rank"),
                                             ("mixed", "mae_neck")])  # fmt: skip
def test_it_agrees_under_scores_that_joined_later(name: str, score: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brute_force, "ADDED_SCORES", ("mae_residual",) if name == "official_mbv2" else (score,))
    monkeypatch.setattr(brute_force, "SCORES", ())
    row = check_space(name, brute_force.ADDED, seed=1, problems=6)
    assert row["score"] == score and row["wrong"] == 0 and row["proved"] > 0, row["cases"]


def test_small_spaces_are_parts_of_the_shipped_ones() -> None:
    for name in ("tinynas_k1kx", "official_29m_224", "gelan", "c3k2", "mixed", "giraffe"):
        space = small_space(name, Random(name))
        problem = make_problem(space, Budget.of({"params_m": 1e6}), "params", {}, None, None, 320)
        every = members(space, problem)
        assert LEAST <= len(every) == len(np.unique(problem.identities(every))) == space.size() <= MOST
        whole = find_space(name)
        if name != "official_29m_224":  # whose kernels depend on the picture's side
            for spec in problem.specs(every)[:: max(1, len(every) // 20)]:
                assert all("layers exceed" in line or "kernel" in line for line in whole.violations(spec))


def test_a_wrong_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    def second_best(*words: object, **options: object):  # type: ignore[no-untyped-def]
        found = exact_search(*words, **options)  # type: ignore[arg-type]
        if found.best is None:
            return found
        worse = dict(found.best.metrics) | {"score": found.best.score * 0.999}
        return replace(found, best=replace(found.best, metrics=worse))

    monkeypatch.setattr(brute_force, "exact_search_of", lambda problem: second_best)
    row = check_space("official_tiny", 0, seed=1, problems=4)
    assert row["wrong"] == row["proved"] > 0 and '"outcome": "proved"' in row["cases"]


def test_the_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int]] = []

    def quickly(name: str, number: int, seed: int) -> dict[str, object]:
        made.append((name, number))
        row = {key: "" for key in brute_force.COLUMNS} | {
            "space": name,
            "number": number,
            "members": 9,
            "problems": PER,
        }
        return row | {"proved": 20, "nothing": 5, "unproved": 0, "wrong": 0, "seconds": 1.5, "seed": seed}

    monkeypatch.setattr(brute_force, "check_space", quickly)
    words = [f"folder={tmp_path}", "spaces=gelan,c3k2", f"problems={2 * PER * len(chain_names())}"]
    main([*words, "most=1"])
    main(words)
    assert made == [("gelan", 0), ("c3k2", 0), ("gelan", 1), ("c3k2", 1)]
    assert len(read_rows(tmp_path / "brute_force.csv")) == 4
    page = read_part(tmp_path / "README.md", "brute force")
    assert "| gelan | 2 | 9 to 9 | 50 | 40 | 10 | 0 | 0 | 3 |" in page and page == report(
        read_rows(tmp_path / "brute_force.csv")
    )
    with pytest.raises(UserError, match="spaces=nope: known are"):
        main(["spaces=nope"])
    with pytest.raises(UserError, match="lacks the lines <!-- other -->"):
        write_part(tmp_path / "README.md", "other", "text")


def test_what_is_committed_agrees_and_is_what_the_page_says() -> None:
    rows = read_rows(HERE / "brute_force.csv")
    assert {row["space"] for row in rows} == set(chain_names())
    assert all(int(row["problems"]) == PER and int(row["wrong"]) == 0 and not row["cases"] for row in rows)
    assert read_part(HERE / "README.md", "brute force") == report(rows)
