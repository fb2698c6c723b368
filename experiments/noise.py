"""How much of the differences between trained networks seeds alone would make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nas.errors import UserError


@dataclass(frozen=True, slots=True)
class Noise:
    """Between-network and between-seed standard deviations of an accuracy, and the share of variance that networks make."""

    networks: int
    seeds: int
    between: float
    within: float

    @property
    def ratio(self) -> float:
        """Variance between networks over variance between seeds."""
        return self.between**2 / self.within**2 if self.within else float("inf")

    @property
    def ceiling(self) -> float:
        """The correlation that a perfect score would reach with accuracies of one seed."""
        total = self.between**2 + self.within**2
        return float(np.sqrt(self.between**2 / total)) if total else 0.0


def measured_noise(accuracies: Iterable[Sequence[float]]) -> Noise:
    """Noise from the accuracies of each network, one a seed; networks with a single one tell the spread between networks.

    UserError if fewer than two networks have several seeds.
    """
    rows = [tuple(values) for values in accuracies]
    repeated = [values for values in rows if len(values) > 1]
    if len(repeated) < 2:
        raise UserError("the noise needs at least two networks with two seeds each: go on with `train`")
    within = float(np.mean([np.var(values, ddof=1) for values in repeated]))
    first = np.array([values[0] for values in rows])
    between = max(0.0, float(np.var(first, ddof=1)) - within)
    return Noise(len(repeated), min(map(len, repeated)), between**0.5, within**0.5)
