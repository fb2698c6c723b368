"""What a search is made of: a problem, a searcher that is asked and told, and what is found and proven.

An individual is a row of integers (genes) where the space allows it, else a spec in an object array; searchers never
look inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nas.cost.budget import Budget
from nas.errors import InternalError
from nas.spec import Spec
from search_spaces.streams import Words


@dataclass(frozen=True, slots=True)
class Candidate:
    """A spec with its digest and metrics (`score` among them).

    born: the proposal number at which it appeared; parent: that of the individual it was changed from, -1 for none.
    """

    spec: Spec
    digest: str
    metrics: Mapping[str, float] = field(hash=False)
    parent: int = -1
    born: int = 0

    @property
    def score(self) -> float:
        return self.metrics["score"]

    def __repr__(self) -> str:
        costs = ", ".join(f"{name} {value:.6g}" for name, value in self.metrics.items() if name != "excess")
        return f"Candidate({costs}; {self.digest[:8]})"


@dataclass(frozen=True)
class Certificate:
    """What is proven: no member of the space within the limits scores more than `upper`.

    optimum: the best score found; gap: upper - optimum; rounding: what score buckets and floating-point sums can hide,
    part of `upper`; architectures: members of the space that the proof covers; resources, weights: the budgeted sums
    and their shares in the last relaxation; seconds: of the search.
    Raises InternalError for an optimum above `upper`: the proof, or the score that was found, is then wrong.
    """

    optimum: float
    upper: float
    rounding: float
    architectures: int
    resources: tuple[str, ...]
    weights: tuple[float, ...]
    seconds: float

    def __post_init__(self) -> None:
        if not self.optimum <= self.upper:
            raise InternalError(
                f"a network scores {self.optimum!r}, which is more than the {self.upper!r} that is proven to be the most"
            )

    @property
    def gap(self) -> float:
        return self.upper - self.optimum

    def gap_of(self, score: float) -> float:
        """How far at most another result is from the best of the space."""
        return self.upper - score


#: (n, genes) integers or (n,) objects.
Individuals = np.ndarray


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

    def specs(self, individuals: Individuals) -> list[Spec]:
        """The architectures of individuals."""

    def encode(self, specs: Sequence[Spec]) -> Individuals:
        """The individuals of specs that belong to the space."""

    def pack(self, individuals: Individuals) -> np.ndarray:
        """Individuals as an array of plain numbers or text, for a file."""

    def unpack(self, stored: np.ndarray) -> Individuals:
        """The individuals that `pack` stored."""

    def close(self) -> None:
        """Give back processes, if any."""


def excess(problem: Problem, evaluation: Evaluation) -> npt.NDArray[np.float64]:
    """How far each individual is outside the budget: the sum of relative excesses and shortfalls, 0 inside."""
    total = np.zeros(len(evaluation))
    for metric, low, high in problem.budget.ranges:
        values = evaluation.metrics[:, problem.metrics.index(metric)]
        total += np.maximum(values / high - 1.0, 0.0)
        if low:
            total += np.maximum(1.0 - values / low, 0.0)
    return np.nan_to_num(total, nan=np.inf)


def admitted(budget: Budget, metrics: Sequence[str], evaluation: Evaluation) -> npt.NDArray[np.bool_]:
    """Which individuals, whose numbers are of these metrics, are inside the budget."""
    inside = np.ones(len(evaluation), dtype=bool)
    for metric, low, high in budget.ranges:
        values = evaluation.metrics[:, metrics.index(metric)]
        inside &= (low <= values) & (values <= high)
    return inside


Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Proposals:
    """Individuals with their proposal numbers (`born`) and those of their parents (-1 for none)."""

    individuals: Individuals
    born: npt.NDArray[np.int64]
    parents: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.born)

    def take(self, rows: np.ndarray) -> Proposals:
        """The proposals of some rows."""
        return Proposals(self.individuals[rows], self.born[rows], self.parents[rows])


class Searcher(Protocol):
    """A strategy. `ask` changes nothing, so a batch that was given up can be asked for again; `tell` changes the state.

    What proposal number i is depends on the seed, on i and on what was told before: on no clock and no worker.
    """

    batch: int

    def ask(self, first: int, count: int) -> Proposals:
        """Proposals number first .. first + count - 1."""

    def tell(self, proposals: Proposals, evaluation: Evaluation) -> None:
        """What the new ones among the proposals scored and cost."""

    def state(self) -> Arrays:
        """Everything that `restore` needs, as arrays; individuals as they are."""

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a state."""
