"""Rank ensembles and the statistics of agreement."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from nas.errors import UserError
from nas.scorers.agreement import agreement, kendall, log_rank, ndcg, spearman, spread, top, vote


def test_log_rank_by_hand_and_worst_for_missing_scores() -> None:
    scores = log_rank([[1, 2, 3], [30, math.nan, 20]])
    assert scores == pytest.approx(np.log([1 / 3 * 1, 2 / 3 * 1 / 3, 1 * 2 / 3]))


def test_vote_follows_the_majority_and_pieces_do_not_matter() -> None:
    columns = [[1, 2, 3], [1, 3, 2], [3, 2, 1]]
    assert vote(columns) == pytest.approx([0, 1, 0.5])
    many = np.random.default_rng(0).integers(0, 9, (3, 40)).tolist()
    assert vote(many, chunk=7) == pytest.approx(vote(many))
    with pytest.raises(UserError):
        vote([])


def test_correlations_equal_scipy_also_with_ties_and_infinities() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 50).astype(float), rng.random(50)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert kendall(a, b) == pytest.approx(kendalltau(a, b).statistic)
    a[3] = -np.inf
    assert spearman(a, b) == pytest.approx(spearmanr(np.where(np.isinf(a), -1, a), b).statistic)
    assert spearman(np.ones(50), b) == kendall(np.ones(50), b) == 0


def test_ndcg_by_hand() -> None:
    accuracy = np.array([0.0, 1.0])
    assert ndcg(accuracy, np.array([1, 0])) == pytest.approx(1)
    assert ndcg(accuracy, np.array([0, 1])) == pytest.approx(1 / np.log2(3))
    assert list(top([1.0, 3.0, 2.0], 2, np.random.default_rng(0))) == [1, 2]


def test_agreement_of_a_perfect_and_of_a_constant_score() -> None:
    accuracy = np.linspace(0.1, 0.9, 60)
    perfect = agreement(accuracy, accuracy, resamples=50)
    assert [item.value for item in (perfect.spearman, perfect.kendall, perfect.ndcg)] == pytest.approx([1, 1, 1])
    assert perfect.found.value == pytest.approx(0.9) and perfect.spearman.low > 0.99
    blind = agreement(np.zeros(60), accuracy, resamples=50)
    assert blind.spearman.value == 0 and blind.ndcg.value < 0.9 and blind.found.low < blind.found.value
    assert agreement(accuracy, accuracy, resamples=20, seed=1) == agreement(accuracy, accuracy, resamples=20, seed=1)
    with pytest.raises(UserError, match="at least 3"):
        agreement([1, 2], [1, 2])


def test_spread_separates_seeds_from_networks() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(0, 3, 400)
    result = spread(means[:, None] + rng.normal(0, 1, (400, 5)), means)
    assert result.within == pytest.approx(1, rel=0.1) and result.between == pytest.approx(3, rel=0.1)
    assert result.noise == pytest.approx(0.1, abs=0.02) and 0.9 < result.lowest <= result.highest < 1
