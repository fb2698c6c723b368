"""Random search: independent draws, the baseline that every other searcher must beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le

from nas.searchers.base import Arrays, Proposals
from nas.searchers.problem.base import Evaluation, Problem
from search_spaces.streams import candidate_keys


class RandomSearch:
    """Draws every proposal afresh from the space."""

    def __init__(
        self, problem: Problem, seed: int = 0, batch: Annotated[int, Ge(1), Le(1_000_000)] | None = None
    ) -> None:
        self.batch = batch or (2048 if problem.generous else 64)
        self._problem, self._seed = problem, seed

    def ask(self, first: int, count: int) -> Proposals:
        individuals = self._problem.sample(candidate_keys(self._seed, first, count))
        return Proposals(individuals, np.arange(first, first + count), np.full(count, -1))

    def tell(self, proposals: Proposals, evaluation: Evaluation) -> None:
        """Nothing is learnt."""

    def state(self) -> Arrays:
        return {}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Nothing to go back to."""
