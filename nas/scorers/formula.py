"""What an analytic score is: one formula over levels, which `nas.score` evaluates on one row and a search on thousands.

A formula gives every part of a backbone (the stem, and each block) a gain, and makes scores of the gains summed up to
each level's end, of the widths and map sides there, of the depths and of the costs. The gain of a part is a function of
its amount, and that of a block grows with its units as `repeats` says, so that tables over pairs of widths hold it.
"""

from __future__ import annotations

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nas.blocks.operation import halved
from nas.errors import UserError
from nas.lowering import Operation, backbone_operations
from nas.scorers.base import Scorer, Weights
from nas.spec import Backbone, NeckSpec, Residual, Spec, backbone_of, image_side

Array = NDArray[np.float64]

#: The three maps that a detector reads (strides 8, 16, 32), on a par; stem and stride 4 count through them alone.
DETECTOR_LEVELS = (0.0, 0.0, 1.0, 1.0, 1.0)
#: Leading depths of a chain that the official penalty for uneven depth leaves out, by the kind of its blocks.
_UNCOUNTED = {"k1kxk1": 2, "kxkx": 1}


@dataclass(frozen=True)
class Linear:
    """A score as a sum over parts: by level, what a gain counts and the logarithm of a width at the level's end; or a
    metric of the whole network times `factor`."""

    gains: tuple[float, ...] = ()
    widths: tuple[float, ...] = ()
    metric: str = ""
    factor: float = 1.0


class Formula(ABC):
    """One analytic score with its options; a frozen dataclass derives from it."""

    #: Whether amounts only rise, or only fall, as the channels of a part's operations grow, and gains with the amounts.
    monotone: ClassVar[bool] = False

    def amount(self, operations: Sequence[Operation], side: int) -> float:
        """What the operations of one part, on an image of `side` pixels, come to."""
        return 0.0

    def repeats(self, depth: int, shortcut: bool) -> float:
        """How often the amount of a block's second unit stands behind that of the first in a block of `depth` units;
        shortcut: whether the first unit adds its input."""
        return depth - 1.0

    def gains(self, amounts: Array) -> Array:
        """Gains of parts from their amounts, one by one."""
        return amounts

    @abstractmethod
    def combine(
        self, gains: Array, channels: Array, sides: Array, depths: Array, metrics: Mapping[str, Array]
    ) -> Array:
        """Scores (n,) of n backbones; raises UserError for level weights that do not fit the levels.

        gains: up to each level's end (n, levels); channels: widths there (n, levels); sides: map sides there (levels,);
        depths: those that `counted_depths` tells (n, blocks); metrics: costs of the whole network (n,) by name.
        """

    def linear(self) -> Linear | None:
        """The score as a sum over parts, None where it is none."""
        return None

    def logs(self) -> tuple[float, ...] | None:
        """Weights by level where the score is minus the sum of the logarithms of the gains up to each level's end, none
        of them negative; else None."""
        return None

    @property
    def through_neck(self) -> bool:
        """Whether the score is a convex function, falling in none, of the gains up to C3, C4 and C5, and knows their widths."""
        return False

    def behind(self, neck: NeckSpec | None, out: tuple[int, ...] | None) -> Formula:
        """The formula for backbones in front of a neck (None: bare ones), whose output widths are `out`, or (None) those
        of C3, C4, C5; raises UserError where a score needs what there is not."""
        return self

    @property
    def digest(self) -> str:
        """Of what was read from a file, which a search that goes on must find again; empty without one."""
        return ""

    def score(self, spec: Spec, image_size: int | None = None) -> float:
        """The score of a backbone, or of a detector's backbone, at `image_size` pixels (its own, or 640)."""
        backbone = backbone_of(spec)
        return self.score_of_levels(backbone, *level_ends(backbone, self, image_side(spec, image_size)))

    def score_of_levels(self, backbone: Backbone, gains: Array, channels: Array, sides: Array) -> float:
        """The score from what `level_ends` tells of a backbone."""
        depths = np.array([counted_depths(backbone)], dtype=np.float64)
        return float(self.combine(gains[None], channels[None], sides, depths, {})[0])


@dataclass(frozen=True)
class LevelSum(Formula):
    """sum over levels of w_s (ln C_s + gains up to the end of s)."""

    level_weights: Weights = DETECTOR_LEVELS

    def combine(
        self, gains: Array, channels: Array, sides: Array, depths: Array, metrics: Mapping[str, Array]
    ) -> Array:
        return weighted(gains + np.log(channels), self.level_weights)

    def linear(self) -> Linear:
        weights = np.asarray(self.level_weights, dtype=np.float64)
        return Linear(tuple(weights[::-1].cumsum()[::-1].tolist()), tuple(weights.tolist()))


def formula_of(scorer: Scorer, options: Mapping[str, object]) -> Formula | None:
    """The formula of a scorer with these options; None without one, or where an option is none of the formula's."""
    if not scorer.closed_form:
        return None
    usual = {name: item.default for name, item in inspect.signature(scorer.function).parameters.items()}
    given = {key: value for key, value in options.items() if value is not None and value != usual.get(key)}
    made = getattr(importlib.import_module(scorer.function.__module__), scorer.closed_form)
    if isinstance(made, Formula):
        return None if given else made
    return None if given.keys() - inspect.signature(made).parameters else made(**given)


def level_ends(backbone: Backbone, formula: Formula, side: int) -> tuple[Array, Array, Array]:
    """Gains up to the end of each level, widths and map sides there, of a backbone on an image of `side` pixels."""
    size, width = halved((side, side), backbone.stem.stride), backbone.stem.out
    groups = backbone_operations(backbone, side)
    first, *others = formula.gains(np.array([formula.amount(group, side) for group in groups])).tolist()
    gain, ends = first, {0: (first, width, min(size))}
    for block, level, more in zip(backbone.blocks, backbone.levels, others, strict=True):
        gain, size = gain + more, halved(size, block.stride)
        ends[level] = (gain, block.out, min(size))
    gains, channels, sides = np.array(list(ends.values()), dtype=np.float64).T
    return gains, channels, sides


def counted_depths(backbone: Backbone) -> list[int]:
    """Depths of the residual blocks, without the first ones that the official penalty for uneven depth leaves out."""
    blocks = [block for block in backbone.blocks if isinstance(block, Residual)]
    return [block.depth for block in blocks][max((uncounted(block.kind) for block in blocks), default=0) :]


def uncounted(kind: str) -> int:
    """How many leading depths of blocks of a kind the official penalty leaves out."""
    return _UNCOUNTED.get(kind, 0)


def weighted(values: Array, weights: Sequence[float]) -> Array:
    """Sum over levels (n, levels); raises UserError unless there is a weight for each."""
    if values.shape[1] != len(weights):
        raise UserError(
            f"the backbone has {values.shape[1]} levels (the stem is the first), got {len(weights)} level weights"
        )
    return values @ np.asarray(weights, dtype=np.float64)
