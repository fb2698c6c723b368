"""Post-processing is timed on what a network gives, and the prices are those of the device."""

from __future__ import annotations

import pytest

from nas.cost.postprocess import FinalRows, PostProcess, Suppression
from nas.inference.postprocess import postprocess
from nas.measure.postprocessing import THRESHOLD, fitted, grid, made_up, measure_postprocess

LAW = PostProcess(Suppression(0.4, 0.7, 1.3, 0.05), FinalRows(0.1, 6.0), 21, 0.0)


def test_the_prices_of_a_device_are_found_again() -> None:
    def timed(boxes: int, classes: int, candidates: int) -> float:
        return LAW.of_candidates(boxes, classes, candidates) if candidates else LAW.of_rows(boxes, classes)

    found = fitted(timed)
    assert found.points == 21 and found.error_percent < 0.01 and found.how == "measured"
    for ours, law in ((found.suppression, LAW.suppression), (found.final_rows, LAW.final_rows)):
        for name in law.__dataclass_fields__:
            assert getattr(ours, name) == pytest.approx(getattr(law, name), rel=1e-3), name


def test_a_made_up_picture_has_as_many_candidates_as_it_should() -> None:
    for boxes, classes, candidates in grid():
        scores, corners = made_up(boxes, classes, candidates)
        assert int((scores > THRESHOLD).sum()) == candidates and corners.shape == (1, boxes, 4)
    (found,) = postprocess(scores, corners, THRESHOLD, max_detections=300)
    assert 100 < len(found.scores) <= 300


def test_this_device_has_prices() -> None:
    found = measure_postprocess(repetitions=3)
    assert found.ms(80, False, 640) > found.ms(80, True, 640) > 0
    assert found.of_candidates(8400, 1, 3000) > found.of_candidates(8400, 1, 100)
