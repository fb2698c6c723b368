"""What a searcher sees of a search: draws, moves and evaluations of whole arrays of individuals.

An individual is a row of integers (genes) where the space allows it, else a spec in an object array; searchers never
look inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nas.cost.budget import Budget
from nas.spec import Spec
from search_spaces.streams import Words

#: (n, genes) integers or (n,) objects.
Individuals = npt.NDArray[Any]


class Interrupted(Exception):
    """The evaluation of a batch was given up because the user asked to stop; nothing of the batch counts."""


@dataclass(frozen=True)
class Evaluation:
    """Numbers of n individuals: score (higher is better) and one column of `metrics` per name in `Problem.metrics`."""

    score: npt.NDArray[np.float64]
    metrics: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.score)


class Problem(Protocol):
    """A search space with an objective and limits, array by array.

    generous: whether thousands of evaluations cost less than a second, so that large batches lose nothing.
    """

    generous: bool
    metrics: tuple[str, ...]
    budget: Budget

    def initial(self) -> Individuals:
        """The individuals that every search starts from, one or a few."""

    def sample(self, keys: Words) -> Individuals:
        """One random individual per key."""

    def mutate(self, parents: Individuals, keys: Words, minor: bool) -> Individuals:
        """One changed individual per parent."""

    def crossover(self, first: Individuals, second: Individuals, keys: Words) -> Individuals:
        """One child per pair."""

    def identities(self, individuals: Individuals) -> Words:
        """A 64-bit hash of each individual, the same on every machine."""

    def evaluate(self, individuals: Individuals, stop: Callable[[], bool] = lambda: False) -> Evaluation:
        """Score and metrics of each individual; raises Interrupted if `stop` turns true meanwhile."""

    def spec(self, individual: Any) -> Spec:
        """The architecture of one individual."""

    def encode(self, specs: Sequence[Any]) -> Individuals:
        """The individuals of specs that belong to the space."""

    def pack(self, individuals: Individuals) -> npt.NDArray[Any]:
        """Individuals as an array of plain numbers or text, for a file."""

    def unpack(self, stored: npt.NDArray[Any]) -> Individuals:
        """The individuals that `pack` stored."""

    def close(self) -> None:
        """Give back processes, if any."""


def excess(problem: Problem, evaluation: Evaluation) -> npt.NDArray[np.float64]:
    """How far each individual is outside the budget: the sum of relative excesses, 0 inside."""
    total = np.zeros(len(evaluation))
    for metric, limit in problem.budget.limits:
        values = evaluation.metrics[:, problem.metrics.index(metric)]
        total += np.maximum(values / limit - 1.0, 0.0)
    return np.nan_to_num(total, nan=np.inf)
