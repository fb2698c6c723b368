"""Ranks of scores: how well they agree with accuracies, how sure that is, and scores that combine the ranks of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau, rankdata

from nas.errors import UserError

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """Spearman's rho, Kendall's tau-b, nDCG at 10, and the best accuracy among the ten best-scored networks."""

    networks: int
    spearman: Estimate
    kendall: Estimate
    ndcg: Estimate
    found: Estimate


def spearman(score: ArrayLike, accuracy: ArrayLike) -> float:
    """Spearman's rank correlation with averaged ties; 0 where one side is constant."""
    a, b = rankdata(score), rankdata(accuracy)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else 0.0


def kendall(score: ArrayLike, accuracy: ArrayLike) -> float:
    """Kendall's tau-b; 0 where one side is constant."""
    value = float(kendalltau(rankdata(score), rankdata(accuracy)).statistic)
    return 0.0 if np.isnan(value) else value


def top(score: ArrayLike, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Indices of the best `count` scores, best first; ties in random order."""
    values = np.asarray(score, dtype=float)
    return np.lexsort((rng.random(values.size), -values))[:count]


def ndcg(accuracy: ArrayLike, order: NDArray[np.intp], count: int = 10) -> float:
    """Normalised DCG of the first `count`, gain 2^accuracy - 1 with accuracy in [0, 1] (VKDNW)."""
    gains = np.exp2(np.asarray(accuracy, dtype=float)) - 1
    discounts = 1 / np.log2(np.arange(2, min(count, gains.size) + 2))
    ideal = float(np.sort(gains)[::-1][: discounts.size] @ discounts)
    return float(gains[order[: discounts.size]] @ discounts) / ideal if ideal else 1.0


def _estimate(value: float, samples: list[float]) -> Estimate:
    low, high = np.quantile(samples, (0.025, 0.975)) if samples else (np.nan, np.nan)
    return Estimate(value, float(low), float(high))


def agreement(score: ArrayLike, accuracy: ArrayLike, resamples: int = 500, seed: int = 0, count: int = 10) -> Agreement:
    """Agreement of a score (higher is better) with accuracies in [0, 1], intervals from resampled networks.

    A score of nan counts as the worst; the figures about the top are means over 50 random orders of ties.
    Raises UserError for fewer than three networks or different lengths.
    """
    scores, truth = np.asarray(score, dtype=float), np.asarray(accuracy, dtype=float)
    if scores.shape != truth.shape or scores.size < 3:
        raise UserError(f"agreement needs at least 3 networks with both figures, got {scores.size} and {truth.size}")
    scores = np.where(np.isnan(scores), -np.inf, scores)
    rng = np.random.default_rng(seed)
    orders = [top(scores, count, rng) for _ in range(50)]
    names: dict[str, Callable[[Array, Array], float]] = {"spearman": spearman, "kendall": kendall}
    values = {name: function(scores, truth) for name, function in names.items()}
    values["ndcg"] = float(np.mean([ndcg(truth, order, count) for order in orders]))
    values["found"] = float(np.mean([truth[order].max() for order in orders]))
    samples: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(resamples):
        chosen = rng.integers(0, scores.size, scores.size)
        a, b = scores[chosen], truth[chosen]
        order = top(a, count, rng)
        for name, function in names.items():
            samples[name].append(function(a, b))
        samples["ndcg"].append(ndcg(b, order, count))
        samples["found"].append(float(b[order].max()))
    return Agreement(scores.size, **{name: _estimate(values[name], samples[name]) for name in values})


@dataclass(frozen=True, slots=True)
class Spread:
    """How much a score depends on the seed: mean deviation within a network, deviation between networks' means."""

    networks: int
    seeds: int
    within: float
    between: float
    lowest: float
    highest: float

    @property
    def noise(self) -> float:
        """Share of a single score's variance that the seed makes."""
        total = self.within**2 + self.between**2
        return self.within**2 / total if total else 0.0


def spread(scores: ArrayLike, accuracy: ArrayLike) -> Spread:
    """Spread of `scores` (networks, seeds); `lowest` and `highest` are the Spearman's rho of the single seeds.

    Networks with an infinite score are left out of the deviations.
    """
    values, truth = np.asarray(scores, dtype=float), np.asarray(accuracy, dtype=float)
    single = [spearman(column, truth) for column in values.T]
    finite = values[np.isfinite(values).all(1)]
    within = float(np.sqrt(finite.var(1, ddof=1).mean())) if finite.shape[0] and finite.shape[1] > 1 else 0.0
    between = float(finite.mean(1).std(ddof=1)) if finite.shape[0] > 1 else 0.0
    return Spread(values.shape[0], values.shape[1], within, between, min(single), max(single))


def _columns(columns: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """(scorers, networks), with nan (a scorer without an answer) as the worst value."""
    values = np.asarray(columns, dtype=float)
    if values.ndim != 2 or values.size == 0:
        raise UserError("an ensemble needs the scores of at least one scorer on at least one network")
    return np.where(np.isnan(values), -np.inf, values)


def log_rank(columns: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Sum over scorers of ln(rank / networks), rank 1 the worst: AZ-NAS's combination, which punishes any bad rank."""
    values = _columns(columns)
    return np.log(np.stack([rankdata(row) for row in values]) / values.shape[1]).sum(0)


def vote(columns: Sequence[ArrayLike], chunk: int = 512) -> NDArray[np.float64]:
    """Share of the other networks that a majority of scorers puts below each one (Abdelfattah et al., ICLR 2021).

    Compares in pieces of `chunk` networks, so memory grows with the population and not with its square.
    """
    values = _columns(columns)
    count = values.shape[1]
    wins = np.empty(count)
    for start in range(0, count, chunk):
        part = values[:, start : start + chunk, None]
        others = values[:, None, :]
        balance = (part > others).sum(0).astype(int) - (part < others).sum(0)
        wins[start : start + chunk] = (balance > 0).sum(1) + 0.5 * ((balance == 0).sum(1) - 1)
    return wins / max(count - 1, 1)
