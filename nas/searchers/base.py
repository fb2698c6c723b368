"""The protocol of a searcher: it is asked for proposals and told how they did, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nas.searchers.problem.base import Evaluation, Individuals

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Proposals:
    """Individuals with their proposal numbers (`born`) and those of their parents (-1 for none)."""

    individuals: Individuals
    born: npt.NDArray[np.int64]
    parents: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.born)

    def take(self, rows: npt.NDArray[Any]) -> Proposals:
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

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Go back to a state."""
