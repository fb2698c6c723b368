"""Scores that exist for a population only: combined ranks. A value means nothing without its peers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from nas.errors import UserError

#: Members of the published ensembles.
AZNAS = ("az_expressivity", "az_progressivity", "az_trainability", "macs")
VOTE = ("synflow", "jacov", "snip")


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


def mean_rank(columns: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Mean rank over scorers, scaled to (0, 1]."""
    values = _columns(columns)
    return np.stack([rankdata(row) for row in values]).mean(0) / values.shape[1]


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
