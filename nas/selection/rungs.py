"""How a selection spends its epochs: rungs of successive halving (Jamieson and Talwalkar, 2016) on one full schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nas.errors import UserError
from nas.options import Count

#: Networks that at least take part in the last rung, where there are so many: a winner and a runner-up.
LAST = 2
#: A training of fewer epochs says nothing.
FEWEST_EPOCHS = 4


@dataclass(frozen=True, slots=True)
class Rung:
    """Up to which epoch the entrants of a rung are trained, and how many there are."""

    epochs: Count
    entrants: Count


@dataclass(frozen=True, slots=True)
class Plan:
    """The rungs, the last of which ends a training, and the seeds that the networks of the last rung are trained with.

    From the second rung on one network more may take part than `entrants` says: the best drawn one is never dropped.
    """

    rungs: tuple[Rung, ...]
    seeds: Count = 1

    def __post_init__(self) -> None:
        ends = [rung.epochs for rung in self.rungs]
        if not ends or ends != sorted(set(ends)):
            raise UserError(f"the rungs of a selection must end at later and later epochs, got {ends}")

    @property
    def epochs(self) -> int:
        """Epochs of a whole training, which the schedule of every training has from its start."""
        return self.rungs[-1].epochs

    @property
    def cost(self) -> int:
        """Epochs of all trainings together, at most."""
        total, before = 0, 0
        for number, rung in enumerate(self.rungs):
            total += (rung.entrants + bool(number)) * (rung.epochs - before)
            before = rung.epochs
        last = self.rungs[-1].entrants + (len(self.rungs) > 1)
        return total + last * (self.seeds - 1) * self.epochs

    @property
    def exhaustive(self) -> int:
        """Epochs that training all networks to the end would take."""
        return self.rungs[0].entrants * self.epochs


def make_plan(candidates: int, epochs: int, factor: float = 3.0, seeds: int = 1, first: float = 0.0) -> Plan:
    """Rungs for `candidates` networks and trainings of `epochs` epochs: each keeps one of `factor`, after `factor` times
    as many epochs as the one before.

    first: the share of a training that the first rung takes at least; where it is more than the factor gives, the rungs
    lie closer together.
    """
    entrants = [candidates]
    while entrants[-1] > factor:
        entrants.append(max(LAST, -int(-entrants[-1] // factor)))
    steps = len(entrants) - 1
    start = max(first, factor**-steps)
    ends = [max(1, round(epochs * start ** (power / max(1, steps)))) for power in range(steps, -1, -1)]
    kept: list[Rung] = []
    for number, (end, count) in enumerate(zip(ends, entrants, strict=True)):
        if end in ends[number + 1 :]:  # too few epochs for so many rungs: the networks of this one meet at the next
            continue
        kept.append(Rung(end, count if kept else candidates))
    return Plan(tuple(kept), seeds)


def plan_of_minutes(minutes: float, epoch_seconds: float, fixed_seconds: float, candidates: int, **more: Any) -> Plan:
    """The longest plan that `minutes` allow, if an epoch of one network takes `epoch_seconds` of them.

    fixed_seconds: what comes once (export, measuring, test); more: as `make_plan`. Raises UserError, with what would fit,
    where the trainings would be shorter than four epochs.
    """
    seconds = 60 * minutes - fixed_seconds

    def fits(epochs: int, networks: int = candidates) -> bool:
        return make_plan(networks, epochs, **more).cost * epoch_seconds <= seconds

    if not fits(FEWEST_EPOCHS):
        least = make_plan(candidates, FEWEST_EPOCHS, **more).cost * epoch_seconds + fixed_seconds
        fitting = next((n for n in range(candidates - 1, LAST - 1, -1) if fits(FEWEST_EPOCHS, n)), None)
        fewer = f", or candidates={fitting}" if fitting else ""
        raise UserError(
            f"{minutes:g} minutes are too few for {candidates} networks: an epoch of one takes {epoch_seconds:.0f} s here; "
            f"{-(-least // 60):.0f} minutes would do{fewer}, a smaller image_size, or fewer seeds"
        )
    low, high = FEWEST_EPOCHS, FEWEST_EPOCHS + 1
    while fits(high) and high < 10_000:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return make_plan(candidates, low, **more)
