"""The image size of a search reaches whatever looks at an image: scores, costs, and the published rows beside the winner."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import nas
from nas.commands.search_files import published_marks
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.frame import Frame
from nas.scorers import score_spec
from nas.searchers.catalog import make_problem
from nas.searchers.settings import SearchSettings
from nas.spec import Backbone
from search_spaces import find_space

SMALL = Frame(image_size=320)
FLAW: dict[str, Any] = {"squeeze_excite_flaw": True}


def score_of(backbone: Backbone, scope: str, scorer: str, **limits: float) -> float:
    space = find_space("tinynas_k1dwsek1")
    given = SearchSettings.of({"params_m": 1e3, **limits}, space, frame=SMALL, scope=scope)
    options = FLAW if scorer == "deepmad" else {}
    frame = SMALL if scope == "detector" else None
    problem = make_problem(space, given.budget, scorer, options, None, frame, given.frame.image_size)
    return float(problem.evaluate(problem.encode([backbone])).score[0])


@pytest.mark.parametrize("scorer", ["macs", "deepmad", "level_balance", "mae"])
@pytest.mark.parametrize("scope", ["backbone", "detector"])
def test_both_kinds_of_problem_score_at_the_searched_size(scope: str, scorer: str) -> None:
    backbone = find_space("tinynas_k1dwsek1").initial()
    whole = SMALL.detector(backbone) if scope == "detector" else backbone
    options = FLAW if scorer == "deepmad" else {}
    expected = score_spec(whole, scorer, 320, **options)
    assert score_of(backbone, scope, scorer) == pytest.approx(expected, rel=1e-12)
    assert score_of(backbone, scope, scorer, peak_memory_mb=1e6) == pytest.approx(expected, rel=1e-12)
    if scorer not in ("mae",):
        assert expected != pytest.approx(score_spec(whole, scorer, 640, **options))


@pytest.mark.parametrize(("scope", "name"), [("detector", "damo-yolo-t"), ("backbone", "tinynas_l20_k1kx")])
def test_published_rows_are_judged_at_the_searched_size(scope: str, name: str) -> None:
    settings = SearchSettings.of({"latency_ms": 3}, scorer="deepmad", frame=SMALL, scope=scope)
    (found, score, metrics), _ = published_marks(settings, LatencyTable.load(settings.hardware))
    spec = nas.load(name)
    assert found == name and score == nas.score(spec, "deepmad", image_size=320)
    assert metrics["flops_g"] == pytest.approx(nas.count(spec, image_size=320).flops / 1e9, rel=1e-12)
    assert metrics["latency_ms"] == pytest.approx(nas.latency(spec, image_size=320).ms, rel=1e-12)


def test_a_scorer_that_looks_at_no_image_takes_any_size() -> None:
    spec = nas.load("damo-yolo-t")
    assert (
        nas.score(spec, "mae", image_size=320) == nas.score(spec, "mae") == nas.score(spec, "mae", level_weights=None)
    )


def test_a_search_refuses_a_size_that_its_networks_cannot_have() -> None:
    with pytest.raises(UserError, match="positive multiple of 32, got 33"):
        SearchSettings.of({"layers": 25}, frame=Frame(image_size=33))
    with pytest.raises(UserError, match="at least the backbone's last stride, 32, got 16"):
        SearchSettings.of({"layers": 25}, frame=Frame(image_size=16), scope="backbone")
    assert SearchSettings.of({"layers": 25}, frame=replace(SMALL, image_size=100), scope="backbone")
