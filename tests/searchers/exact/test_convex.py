"""Scores that are convex functions of sums: what planes promise inside a box (chords: and outside), and proved optima."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nas
from nas.frame import Frame
from nas.scorers.formula import Formula
from nas.scorers.neck_entropy import NeckEntropy
from nas.scorers.residual import EffectiveRank
from nas.searchers.exact.chords import LogBox as Box
from nas.searchers.exact.necks import NeckScore
from nas.spec import NeckSpec

SUMS = st.floats(1e-3, 1e3)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """A box of up to four levels whose edges are apart by a factor of one to a thousand."""
    count = draw(st.integers(1, 4))
    low = np.array(draw(st.lists(SUMS, min_size=count, max_size=count)))
    ratios = np.array(draw(st.lists(st.floats(1.0, 1e3), min_size=count, max_size=count)))
    weights = np.array(draw(st.lists(st.floats(0.1, 16.0), min_size=count, max_size=count)))
    return Box(low, low * ratios, weights)


def score(box: Box, sums: np.ndarray) -> float:
    return float(-(box.weights * np.log(sums)).sum())


def promise(box: Box, sums: np.ndarray) -> float:
    """What the chords say of a member."""
    return float(box.base - (box.slopes * sums).sum())


@given(boxes(), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_chords_bound_the_score_inside_and_promise_too_little_outside(box: Box, shares: list[float]) -> None:
    part = np.array(shares[: len(box.low)])
    inside = box.low + part * (box.high - box.low)
    slack = 1e-9 * (1 + np.abs(box.slopes * box.high).sum() + abs(box.base))
    assert -slack <= promise(box, inside) - score(box, inside) <= box.excess + slack
    for outside in (box.low * (0.1 + 0.9 * part), box.high * (1 + 9 * part)):
        assert promise(box, outside) <= score(box, outside) + slack * 10


@given(boxes(), st.floats(0, 1), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_what_is_cut_off_scores_no_more(box: Box, share: float, shares: list[float]) -> None:
    # Sums grow from level to level, as gains are added up.
    sums = np.maximum.accumulate(box.low + np.array(shares[: len(box.low)]) * (box.high - box.low))
    if (sums > box.high).any():
        return
    known = score(box, box.low) - share * (score(box, box.low) - score(box, box.high))
    part = box.below(known)
    kept = part is not None and bool((part.low <= sums).all() and (sums <= part.high).all())
    assert kept or score(box, sums) <= known + 1e-9 * (1 + abs(known))


@given(boxes())
def test_halves_make_up_the_box_and_promise_less(box: Box) -> None:
    upper, lower = box.halves()
    assert (lower.low == box.low).all() and (upper.high == box.high).all()
    assert ((upper.low == lower.high) | (lower.high == box.high) & (upper.low == box.low)).all()
    assert (upper.low == lower.high).sum() >= 1
    assert max(upper.excess, lower.excess) <= box.excess + 1e-12


def test_levels_that_do_not_count_and_negative_weights() -> None:
    assert EffectiveRank().logs() == (0.0, 0.0, 1.0, 1.0, 1.0)
    assert EffectiveRank((0.0, 1.0, -1.0)).logs() is None and EffectiveRank((0.0, 0.0)).logs() is None
    assert issubclass(EffectiveRank, Formula) and EffectiveRank().linear() is None


@given(st.lists(st.floats(0.1, 30.0), min_size=6, max_size=6), st.lists(st.floats(0, 1), min_size=3, max_size=3),
       st.booleans())  # fmt: skip
def test_planes_bound_the_score_through_a_neck(edges: list[float], shares: list[float], narrow: bool) -> None:
    formula = NeckEntropy().behind(NeckSpec((64, 64, 64)), (32, 64, 96) if narrow else None)
    low, wide = np.array(edges).reshape(2, 3)
    widths = np.array([[16, 64, 512], [64, 64, 64], [256, 256, 320]])
    box = NeckScore(formula, [2, 3, 4]).box(low.cumsum(), low.cumsum() + wide, widths, np.array([True, True, False]))
    assert box is not None
    for part in (box, *box.halves()):
        inside = (part.low + np.array(shares) * (part.high - part.low)).cumsum()
        scores = formula.combine(np.tile(inside, (3, 1)), widths.astype(float), np.zeros(3), np.zeros((3, 0)), {})
        over = (part.base + part.slopes @ inside - scores)[:2]
        assert (over >= -1e-9 * scores[:2]).all()
    assert NeckScore(formula, [2, 3, 4]).box(low, np.array([1.0, -np.inf, 1.0]), widths, np.ones(3, dtype=bool)) is None


def test_the_optimum_of_mae_neck_is_proved() -> None:
    """The evolution that the proof starts from, of 20,000 candidates, ends below 3819."""
    found = nas.find({"latency_ms": 3.0}, scorer="mae_neck", searcher="exact")
    certificate = found.outcome.certificate
    assert certificate is not None and found.best.metrics["score"] == pytest.approx(3819.953137195677, rel=1e-9)
    assert certificate.upper - certificate.optimum <= certificate.rounding
    assert found.best.metrics["score"] == pytest.approx(nas.score(Frame().detector(found.best.spec), "mae_neck"))


def test_the_optimum_of_the_default_space_is_proved() -> None:
    """7e14 networks under 3 ms on the T4; evolution of 20,000 candidates, from which the proof starts, ends at 7.776."""
    found = nas.find({"latency_ms": 3.0}, scorer="effective_rank", searcher="exact")
    certificate = found.outcome.certificate
    assert certificate is not None and found.best.metrics["score"] == pytest.approx(7.831473729, abs=1e-8)
    assert certificate.upper - certificate.optimum <= certificate.rounding < 1e-6
    assert found.best.metrics["latency_ms"] <= 3.0 and found.near and not found.outcome.unproven
    assert all(one.metrics["score"] >= 0.99 * certificate.optimum for one in found.near)


@pytest.mark.slow
def test_several_limits_and_one_that_nothing_keeps() -> None:
    both = nas.find({"latency_ms": 3.0, "params_m": (2, 5)}, "c3k2", scorer="effective_rank", searcher="exact")
    alone = nas.find({"latency_ms": 3.0}, "c3k2", scorer="effective_rank", searcher="exact")
    assert both.outcome.certificate is not None and alone.outcome.certificate is not None
    assert 2 <= both.best.metrics["params_m"] <= 5
    assert alone.best.metrics["score"] == pytest.approx(6.685926401, abs=1e-8) and alone.best.metrics["params_m"] > 5
    assert both.best.metrics["score"] < alone.best.metrics["score"]
