"""The order of the images: a pure function of (seed, epoch), split into batches, resumable at any of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.errors import UserError

_ORDER, _SIZE = 0, 1  # what a random stream is for: keeps the streams of one (seed, epoch) apart


class Draw(NamedTuple):
    """What a sample is a function of, besides the seed.

    record: index into the data; epoch; position in the epoch's global order; batch number; image size; progress of the
    whole training in [0, 1]; opening: progress of the epochs before the closing ones, 1 or more in these; again: how often
    the record was drawn before in the epoch.
    """

    record: int
    epoch: int
    position: int
    batch: int
    size: int
    progress: float
    opening: float
    again: int = 0

    @property
    def closing(self) -> bool:
        """Whether the closing epochs, without mosaic and mixup, have begun."""
        return self.opening >= 1


@dataclass(frozen=True, eq=False)
class Order:
    """The images of every training epoch, in order.

    length: images; factors (length,), each at least 1: how often each comes in an epoch on average (nas.data.rare), None:
    once. With factors an epoch has their sum of draws, rounded up, and every image comes as often as the whole number
    below or above its factor says (one uniform number and equal steps over the factors: systematic sampling).
    """

    length: int
    seed: int = 0
    factors: NDArray[np.float64] | None = None

    @property
    def draws(self) -> int:
        """Draws of a whole epoch."""
        return self.length if self.factors is None else math.ceil(round(float(self.factors.sum()), 6))

    def of(self, epoch: int) -> NDArray[np.int64]:
        """The images of an epoch (draws,): a permutation, or with factors one of the repeated images."""
        return _order(self, epoch)

    def again(self, epoch: int) -> NDArray[np.int64]:
        """Of every draw of an epoch (draws,), how often its image was drawn before."""
        return _again(self, epoch)


@lru_cache(maxsize=4)
def _order(order: Order, epoch: int) -> NDArray[np.int64]:
    rng = np.random.default_rng([order.seed, epoch, _ORDER])
    found = rng.permutation(order.length)
    if order.factors is not None:
        ends = np.cumsum(order.factors[found])
        steps = (np.arange(order.draws) + rng.random()) * (ends[-1] / order.draws)
        found = rng.permutation(found[np.searchsorted(ends, steps, side="right").clip(max=order.length - 1)])
    found.flags.writeable = False  # the cache hands out the same array again
    return found


@lru_cache(maxsize=4)
def _again(order: Order, epoch: int) -> NDArray[np.int64]:
    images = order.of(epoch)
    counts = np.bincount(images, minlength=order.length)
    again = np.empty(order.draws, np.int64)
    again[np.argsort(images, kind="stable")] = np.arange(order.draws) - np.repeat(np.cumsum(counts) - counts, counts)
    return again


LANE_UNIT, LANES = 16, 4


@lru_cache(maxsize=64)
def _lane(order: Order, epoch: int, block: int, lane: int, pool: int) -> NDArray[np.int64]:
    units = np.arange(max(pool // LANE_UNIT, 1)) * LANES + lane + block
    positions = units[:, None] * LANE_UNIT + np.arange(LANE_UNIT)
    return np.sort(order.of(epoch)[np.unique(positions.ravel() % order.draws)])


def companions(order: Order, draw: Draw, pool: int) -> NDArray[np.int64]:
    """The images that may stand beside the draw's in a mosaic: about `pool` of them, a whole epoch's if pool is 0.

    The epoch's order is cut into units of 16, and every fourth unit is of one lane: with 1, 2 or 4 workers, which take
    batches in turn, a worker meets whole lanes, so that it decodes each image once although its mosaics show it four
    times. Who stands beside whom does not depend on the workers. Repeated images are there as often as they are drawn.
    """
    if not pool or pool >= order.length:
        return order.of(draw.epoch)
    unit = draw.position % order.draws // LANE_UNIT
    span = max(pool // LANE_UNIT, 1) * LANES
    return _lane(order, draw.epoch, unit // span * span, unit % LANES, pool)


class EpochSampler:
    """Yields one list of draws a batch, from batch `position` of `epoch` on: this rank's share of each global batch.

    The global batches do not depend on the number of processes: `batch_size` is per process, and rank r takes the r-th
    part. Training wraps round so that every batch is full (ceil(draws / global batch) batches); otherwise the order is
    `still` and the last batch may be short. `sizes`: image sizes, one drawn a batch. `total_epochs` None: the
    end is not known, so that no epoch is a closing one and progress is 1. endless: go on with the next epoch's batches,
    as far as `total_epochs`, instead of stopping after one. factors: of a training's `Order`. still: the order of an
    evaluation, None: that of the data.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int = 0,
        train: bool = True,
        sizes: tuple[int, ...] = (640,),
        rank: int = 0,
        world_size: int = 1,
        total_epochs: int | None = None,
        closing_epochs: float = 0,
        endless: bool = False,
        factors: NDArray[np.float64] | None = None,
        still: NDArray[np.int64] | None = None,
    ) -> None:
        self.endless = endless
        self.still = np.arange(length) if still is None else still
        self.order = Order(length, seed, factors if train else None)
        self.length, self.batch_size, self.seed, self.train, self.sizes = length, batch_size, seed, train, sizes
        self.rank, self.world_size = rank, world_size
        self.total_epochs, self.closing_epochs = total_epochs, closing_epochs
        self.epoch, self.position = 0, 0

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return -(-self.order.draws // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, first = self.epoch, self.position
        yield from self._of_epoch(epoch, first)
        while self.endless and not self.is_over(epoch + 1):
            epoch += 1
            yield from self._of_epoch(epoch, 0)

    def is_over(self, epoch: int) -> bool:
        """Whether the training ends before this epoch."""
        return self.total_epochs is not None and epoch >= self.total_epochs

    def _of_epoch(self, epoch: int, first: int) -> Iterator[list[Draw]]:
        draws = self.order.draws
        order = self.order.of(epoch) if self.train else self.still
        again = self.order.again(epoch) if self.train else np.zeros(self.length, np.int64)
        counts = np.bincount(order, minlength=self.length)
        for batch in range(first, len(self)):
            progress, opening = self._progress(epoch + batch / len(self))
            choice = np.random.default_rng([self.seed, epoch, _SIZE, batch]).integers(len(self.sizes))
            start = (batch * self.world_size + self.rank) * self.batch_size
            end = start + self.batch_size if self.train else min(start + self.batch_size, self.length)
            if end > start:
                yield [
                    Draw(
                        image, epoch, p, batch, self.sizes[choice], progress, opening,
                        int(p // draws * counts[image] + again[p % draws]),
                    )
                    for p in range(start, end)
                    for image in [int(order[p % draws])]
                ]  # fmt: skip

    def _progress(self, epochs: float) -> tuple[float, float]:
        if self.total_epochs is None:
            return 1.0, 0.0
        before = self.total_epochs - self.closing_epochs
        return min(epochs / self.total_epochs, 1.0), epochs / before if before > 0 else 1.0

    def state_dict(self) -> dict[str, float | None]:
        """Where the next batch is, and what the order depends on."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "seed": self.seed,
            "length": self.length,
            "global_batch": self.batch_size * self.world_size,
            "total_epochs": self.total_epochs,
            "closing_epochs": self.closing_epochs,
        }

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """Go on where the state was taken; UserError if the data, the seed or the global batch is another one."""
        mine = self.state_dict()
        for key, what in (("length", "number of images"), ("seed", "seed"), ("global_batch", "global batch size")):
            if state[key] != mine[key]:
                raise UserError(
                    f"cannot resume: the {what} was {state[key]} and is {mine[key]} now; restore it, or start a new run"
                )
        self.epoch, self.position = int(state["epoch"] or 0), int(state["position"] or 0)
        if self.position == len(self):  # taken at an epoch's last batch, before the next one began
            self.epoch, self.position = self.epoch + 1, 0
        # With a time budget the plan is a fraction of an epoch (nas.training.trainer).
        self.total_epochs = state["total_epochs"]  # type: ignore[assignment]
        self.closing_epochs = state["closing_epochs"] or 0
