"""The analytic scorers over arrays of candidates: the same numbers as `nas.scorers`, thousands at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.blocks.operation import CONVOLUTIONS
from nas.errors import UserError
from nas.lowering import Operation
from nas.scorers import find_scorer
from nas.scorers.deepmad import LEVEL_WEIGHTS as DEEPMAD_WEIGHTS
from nas.scorers.entropy import LEVEL_WEIGHTS, log_gain
from nas.searchers.problem.objective import GAIN, METRICS, Formula, additive

Array = npt.NDArray[np.float64]


def _weighted(values: Array, weights: Sequence[float]) -> Array:
    if values.shape[1] != len(weights):
        raise UserError(
            f"the backbone has {values.shape[1]} levels (the stem is the first), got {len(weights)} level weights"
        )
    return values @ np.asarray(weights, dtype=np.float64)


@dataclass(frozen=True)
class MaeFormula:
    """`nas.scorers.entropy.mae`: sum over levels of w_s (ln C_s + gains up to the end of s)."""

    level_weights: tuple[float, ...] = LEVEL_WEIGHTS

    def gain(self, operations: Sequence[Operation]) -> float:
        return log_gain(operations)

    def combine(self, gains: Array, channels: Array, sides: Array, depths: Array, metrics: Array) -> Array:
        return _weighted(gains + np.log(channels), self.level_weights)


@dataclass(frozen=True)
class DeepMadFormula:
    """`nas.scorers.deepmad.deepmad`: sum of w_s (ln C_s + 2 ln F_s) (gains up to the end of s), less uneven depth.

    uncounted: leading depths that the penalty leaves out (2 for k1kxk1, 1 for kxkx).
    """

    level_weights: tuple[float, ...] = DEEPMAD_WEIGHTS
    alpha1: float = 1.0
    alpha2: float = 1.0
    depth_penalty: float = 0.0
    uncounted: int = 0

    def gain(self, operations: Sequence[Operation]) -> float:
        main = [op for op in operations if op.role in ("stem", "main") and op.kind in CONVOLUTIONS and not op.branch]
        widths = np.log([op.in_channels // op.groups for op in main])
        return float(0.5 * (self.alpha1 * widths + 2 * self.alpha2 * np.log([op.kernel for op in main])).sum())

    def combine(self, gains: Array, channels: Array, sides: Array, depths: Array, metrics: Array) -> Array:
        score = _weighted((np.log(channels) + 2 * np.log(sides)) * gains, self.level_weights)
        return score - self.depth_penalty * np.exp(depths[:, self.uncounted :].std(axis=1))


@dataclass(frozen=True)
class CountFormula:
    """The size baselines: a metric, times a factor, is the score."""

    metric: str
    factor: float = 1.0

    def gain(self, operations: Sequence[Operation]) -> float:
        return 0.0

    def combine(self, gains: Array, channels: Array, sides: Array, depths: Array, metrics: Array) -> Array:
        return metrics[:, METRICS.index(self.metric)] * self.factor


#: Score of n parts from vectors, output widths, level, whether the level ends there, whether it is a stem or block.
PartScore = Callable[[Array, npt.NDArray[Any], int, bool, bool], Array]


def linear_score(formula: Formula | None, levels: int) -> PartScore:
    """The score as a sum over parts; raises UserError for a score that is none (DeepMAD is a product)."""
    if isinstance(formula, MaeFormula):
        weights = np.asarray(formula.level_weights, dtype=np.float64)
        if len(weights) != levels:
            raise UserError(
                f"the backbone has {levels} levels (the stem is the first), got {len(weights)} level weights"
            )
        later = weights[::-1].cumsum()[::-1]

        def mae(vectors: Array, widths: npt.NDArray[Any], level: int, end: bool, inside: bool) -> Array:
            result = vectors[:, GAIN] * later[level] if inside else np.zeros(len(vectors))
            return result + weights[level] * np.log(widths) if end else result

        return mae
    if isinstance(formula, CountFormula):
        column, unit = additive(formula.metric)
        factor = formula.factor / unit
        return lambda vectors, widths, level, end, inside: vectors[:, column] * factor
    raise UserError("exact search needs a score that is a sum over blocks: mae, params, macs or layers")


def formula_of(name: str, options: Mapping[str, Any], kind: str = "k1kx") -> Formula | None:
    """The array form of a scorer for blocks of one residual kind, None if it has none.

    Raises UserError for an unknown scorer or option.
    """
    find_scorer(name).check_options(dict(options))
    given = {key: value for key, value in options.items() if value is not None}
    if "level_weights" in given:
        given["level_weights"] = tuple(map(float, given["level_weights"]))
    if name == "mae":
        return MaeFormula(**given)
    if name == "deepmad" and not given.get("squeeze_excite_flaw") and "image_size" not in given:
        given.pop("squeeze_excite_flaw", None)
        return DeepMadFormula(**given, uncounted={"k1kxk1": 2, "kxkx": 1}.get(kind, 0))
    if name in ("params", "layers") and not given:
        return CountFormula("params_m" if name == "params" else "layers")
    if name == "macs" and not given:
        return CountFormula("flops_g", 0.5)
    return None
