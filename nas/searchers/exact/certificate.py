"""What an exact search proves."""

from __future__ import annotations

from dataclasses import dataclass

from nas.errors import InternalError


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
