"""How a selection spends its epochs: rungs of successive halving (Jamieson and Talwalkar, 2016) on one full schedule."""

from __future__ import annotations

from dataclasses import dataclass

from nas.errors import UserError
from nas.options import Count

#: Networks that the last rung is planned for: a quarter of all, at least a winner and a runner-up, at most four. Replayed on
#: curves of trained detectors (experiments/detector_bench/simulated.md), rungs that end with two lose the best to chance.
LAST, LAST_OF_MANY = 2, 4
#: A training of fewer epochs says nothing, and a first rung of fewer cannot tell networks apart: all still warm up.
FEWEST_EPOCHS, FIRST_EPOCHS = 4, 3
#: Networks that a selection by minutes keeps, however short their first rung is.
FEWEST_NETWORKS = 6


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
    as many epochs as the one before, and ends with LAST to LAST_OF_MANY.

    first: the share of a training that the first rung takes at least; where it is more than the factor gives, the rungs
    lie closer together.
    """
    entrants, last = [candidates], min(max(LAST, -(-candidates // 4)), LAST_OF_MANY)
    while entrants[-1] > max(factor, last):
        entrants.append(max(last, -int(-entrants[-1] // factor)))
    steps = len(entrants) - 1
    start = max(first, factor**-steps)
    ends = [max(1, round(epochs * start ** (power / max(1, steps)))) for power in range(steps, -1, -1)]
    kept: list[Rung] = []
    for number, (end, count) in enumerate(zip(ends, entrants, strict=True)):
        if end in ends[number + 1 :]:  # too few epochs for so many rungs: the networks of this one meet at the next
            continue
        kept.append(Rung(end, count if kept else candidates))
    return Plan(tuple(kept), seeds)


def plan_of_minutes(
    minutes: float, epoch_seconds: float, fixed_seconds: float, candidates: int, factor: float = 3.0, seeds: int = 1
) -> Plan:
    """The longest plan that `minutes` allow, if an epoch of one network takes `epoch_seconds` of them.

    As many of the candidates take part as leave the first rung three epochs, at least six of them (or all, if there are
    fewer). fixed_seconds: what comes once (export, measuring, test). Raises UserError, with what would fit, where the
    trainings would be shorter than four epochs.
    """
    seconds = 60 * minutes - fixed_seconds
    fewest = min(candidates, FEWEST_NETWORKS)
    plans = (
        _longest(seconds / epoch_seconds, networks, factor, seeds) for networks in range(candidates, fewest - 1, -1)
    )
    fitting = [plan for plan in plans if plan is not None]
    if not fitting:
        least = make_plan(fewest, FEWEST_EPOCHS, factor, seeds).cost * epoch_seconds + fixed_seconds
        possible = (n for n in range(fewest - 1, LAST - 1, -1) if _longest(seconds / epoch_seconds, n, factor, seeds))
        fewer = next((f", or candidates={networks}" for networks in possible), "")
        raise UserError(
            f"{minutes:g} minutes are too few for {fewest} networks: an epoch of one takes {epoch_seconds:.0f} s here; "
            f"{-(-least // 60):.0f} minutes would do{fewer}, a smaller image_size, or fewer seeds"
        )
    return next((plan for plan in fitting if plan.rungs[0].epochs >= FIRST_EPOCHS), fitting[-1])


def _longest(cost: float, candidates: int, factor: float, seeds: int) -> Plan | None:
    """The plan of most epochs that costs at most `cost` of them; None where four are too many."""

    def fits(epochs: int) -> bool:
        return make_plan(candidates, epochs, factor, seeds).cost <= cost

    if not fits(FEWEST_EPOCHS):
        return None
    low, high = FEWEST_EPOCHS, FEWEST_EPOCHS + 1
    while fits(high) and high < 10_000:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return make_plan(candidates, low, factor, seeds)
