"""One budget for backbone and neck together: the search returns whole detectors and prices them as they are."""

from __future__ import annotations

import pytest

from nas.cost.count import count_spec
from nas.errors import UserError
from nas.frame import Frame
from nas.scorers import score_spec
from nas.searchers.run import run_search
from nas.searchers.settings import SearchSettings
from nas.spec import DetectorSpec
from search_spaces import find_space


def settings(**options: object) -> SearchSettings:
    common: dict[str, object] = {"space": "giraffe", "scorer": "mae_neck", "searcher": "evolution", "evaluations": 200}
    return SearchSettings.of({"flops_g": 12.0}, **common, **options)


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
    for frame in (Frame(depth=2), Frame(out=(64, 128, 256)), Frame(hidden_ratio=(1.0, 1.0, 1.0))):
        with pytest.raises(UserError, match=r"space giraffe searches the neck's (depth|out|hidden_ratio): take neck\."):
            settings(frame=frame)
    with pytest.raises(UserError, match="space has no option 'num_classes'"):
        find_space("giraffe", num_classes=3)


def test_what_the_space_does_not_search_is_the_frames() -> None:
    frame = Frame(num_classes=3, head_stacked=1, activation="silu", extra_up=True, image_size=416)
    found = run_search(settings(frame=frame))
    spec = found.best.spec
    assert isinstance(spec, DetectorSpec) and spec.head == frame.head and spec.image_size == 416
    assert (spec.neck.activation, spec.neck.extra_up) == ("silu", True) and found.settings.space.contains(spec)
    assert found.best.metrics["flops_g"] == pytest.approx(count_spec(spec).flops / 1e9)


def test_a_space_with_a_detector_of_its_own_must_agree_with_the_frame() -> None:
    spec = find_space("giraffe").in_frame(Frame(num_classes=3)).initial()
    with pytest.raises(UserError, match="space mine holds detectors of num_classes 3, neck.num_classes is 80"):
        Frame().require_agreement(spec, "mine")
    with pytest.raises(UserError, match="space mine holds detectors of 640 pixels, image_size is 320"):
        Frame(num_classes=3, image_size=320).require_agreement(spec, "mine")
