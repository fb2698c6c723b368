"""Post-processing is timed on what a network gives, and the prices are those of the device."""

from __future__ import annotations

import pytest

from nas.cost.postprocess import FinalRows, predictions
from nas.inference.postprocess import postprocess
from nas.measure.postprocessing import BETWEEN, THRESHOLD, fitted, made_up, measure_postprocess


def test_the_prices_of_a_device_are_found_again() -> None:
    def timed(boxes: int, classes: int, candidates: int) -> float:
        if not candidates:
            return 0.1 + 6.0 * boxes * classes / 1e6
        return 0.02 * candidates**0.7 * classes**0.2 + 0.7 * boxes * classes / 1e6

    found = fitted(timed)
    assert found.points == len(BETWEEN) and found.error_percent < 0.1 and found.how == "measured"
    assert found.suppression.pairs == pytest.approx(0.7) and found.final_rows == FinalRows(0.1, 6.0)
    assert found.suppression.of(8400, 42, 777) == pytest.approx(timed(8400, 42, 777), rel=1e-3)
    assert found.ms(80, False, 640) == pytest.approx(timed(8400, 80, 3000), rel=1e-3)


def test_noise_makes_no_price_negative() -> None:
    found = fitted(lambda boxes, classes, candidates: 0.5 if classes == 80 else 0.6)
    assert found.suppression.pairs == 0.0 == found.final_rows.pairs and min(map(min, found.suppression.ms)) > 0


def test_a_made_up_picture_has_as_many_candidates_as_it_should() -> None:
    for side, classes, candidates in BETWEEN:
        boxes = predictions(side)
        scores, corners = made_up(boxes, classes, candidates)
        assert int((scores > THRESHOLD).sum()) == candidates and corners.shape == (1, boxes, 4)
    (found,) = postprocess(scores, corners, THRESHOLD, max_detections=300)
    assert 100 < len(found.scores) <= 300


def test_this_device_has_prices() -> None:
    found = measure_postprocess(repetitions=3)
    assert found.ms(80, False, 640) > found.ms(80, True, 640) > 0
    assert found.suppression.of(8400, 1, 3000) > found.suppression.of(8400, 1, 100)
