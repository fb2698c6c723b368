"""What an exact search proves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Certificate:
    """What is proven: no member of the space within the limits scores more than `upper`.

    optimum: the best score found; gap: upper - optimum; rounding: what score buckets and floating-point sums can hide,
    part of `upper`; architectures: members of the space that the proof covers; resources, weights: the budgeted sums
    and their shares in the last relaxation; seconds: of the search.
    """

    optimum: float
    upper: float
    rounding: float
    architectures: int
    resources: tuple[str, ...]
    weights: tuple[float, ...]
    seconds: float

    @property
    def gap(self) -> float:
        return self.upper - self.optimum

    def gap_of(self, score: float) -> float:
        """How far at most another result is from the best of the space."""
        return self.upper - score
