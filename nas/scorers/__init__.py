"""Scores of untrained architectures, by name; nothing is imported before its scorer is used."""

from __future__ import annotations

from typing import Any

from nas.errors import UserError
from nas.scorers.base import Scorer
from nas.scorers.zero_cost import ZERO_COST
from nas.spec import Spec, image_side

_ALL = (
    Scorer("mae", "nas.scorers.entropy:mae", "MAE-DET, arXiv 2111.13336"),
    Scorer("mae_neck", "nas.scorers.neck_entropy:mae_neck", "ours, after MAE-DET"),
    Scorer("mae_residual", "nas.scorers.residual_entropy:mae_residual", "ours, after MAE-DET"),
    Scorer("effective_rank", "nas.scorers.effective_rank:effective_rank", "ours"),
    Scorer("level_balance", "nas.scorers.level_balance:level_balance", "ours"),
    Scorer("deepmad", "nas.scorers.deepmad:deepmad", "DeepMAD, arXiv 2303.02165"),
    Scorer("params", "nas.scorers.counts:params", "baseline"),
    Scorer("macs", "nas.scorers.counts:macs", "baseline"),
    Scorer("layers", "nas.scorers.counts:layers", "baseline"),
    Scorer("random", "nas.scorers.counts:chance", "baseline"),
    *ZERO_COST,
)

SCORERS: dict[str, Scorer] = {scorer.name: scorer for scorer in _ALL}


def find_scorer(name: str) -> Scorer:
    """The scorer of that name; raises UserError with the known names."""
    if name not in SCORERS:
        raise UserError(f"unknown scorer {name!r}; known: {', '.join(SCORERS)}")
    return SCORERS[name]


def spec_scorer(name: str) -> Scorer:
    """The scorer of that name, which reads specs; raises UserError for an unknown one or one that needs a module."""
    scorer = find_scorer(name)
    if scorer.needs != "spec":
        raise UserError(f"scorer {name} needs a {scorer.needs}: rank it with python -m nas.rank")
    return scorer


def score_spec(spec: Spec, name: str = "mae", image_size: int | None = None, **options: Any) -> float:
    """The score of a spec by a scorer that reads specs, on an image of `image_size` pixels (its own, or 640).

    An option that is None is as good as not given. Raises UserError for another scorer, an unknown option, or an image
    size that the network cannot have.
    """
    scorer = spec_scorer(name)
    scorer.check_options(options)
    given = {key: value for key, value in options.items() if value is not None}
    side = image_side(spec, image_size)
    if "image_size" in scorer.options:  # the others do not depend on it
        given["image_size"] = side
    return scorer.function(spec, **given)
