"""One budget for backbone and neck together: the search returns whole detectors and prices them as they are."""

from __future__ import annotations

import pytest

from nas.cost.count import count_spec
from nas.errors import UserError
from nas.frame import Frame
from nas.scorers import score_spec
from nas.searching import SearchSettings, run_search
from nas.spec import DetectorSpec
from search_spaces import find_space


def settings(**options: object) -> SearchSettings:
    return SearchSettings.of({"flops_g": 12.0}, space="giraffe", scorer="mae_neck", evaluations=200, **options)


def test_winner_is_a_member_inside_the_budget_and_counted_whole() -> None:
    result, again = run_search(settings(seed=3)), run_search(settings(seed=3))
    best = result.best
    assert isinstance(best.spec, DetectorSpec) and best.spec == again.best.spec
    assert find_space("giraffe").violations(best.spec) == []
    assert best.metrics["flops_g"] == pytest.approx(count_spec(best.spec).flops / 1e9) and best.metrics["flops_g"] <= 12
    assert best.metrics["score"] == pytest.approx(score_spec(best.spec, "mae_neck"))
    start = score_spec(find_space("giraffe").initial(), "mae_neck")
    assert best.metrics["score"] > start


def test_settings_that_contradict_the_space_are_refused() -> None:
    with pytest.raises(UserError, match="holds whole detectors: it has no scope=backbone"):
        settings(scope="backbone")
    with pytest.raises(UserError, match=r"detectors of 640 pixels, image_size is 416: set space.image_size=416 too"):
        settings(frame=Frame(image_size=416))
    space = find_space("giraffe", image_size=416)
    assert SearchSettings.of({"flops_g": 12}, space=space, frame=Frame(image_size=416)).space is space
