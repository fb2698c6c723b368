"""Scores of untrained architectures, by name; nothing is imported before its scorer is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from nas.errors import UserError
from nas.extensions import found, installed
from nas.scorers.base import Cost, Scorer, number, own_scorer
from nas.spec import Spec, image_side

_FORWARD: Cost = "forward"
_BACKWARD: Cost = "backward"
_SHARED: dict[str, Any] = {"cost": _BACKWARD, "random": True, "shared": True}
_FIRST_ORDER = {"path": "nas.scorers.gradient:first_order", "needs": "module and images", **_SHARED}
_AZNAS = {"path": "nas.scorers.gradient:aznas", "source": "AZ-NAS, CVPR 2024", "needs": "module", **_SHARED}

#: Functions take (module, images (B, 3, H, W), seed); those that need a module alone read the shape of the images.
ZERO_COST: tuple[Scorer, ...] = (
    Scorer("snip", source="Lee et al., ICLR 2019", **_FIRST_ORDER),
    Scorer("grad_norm", source="Abdelfattah 2021", **_FIRST_ORDER),
    Scorer("fisher", source="Theis et al., 2018", **_FIRST_ORDER),
    Scorer("grasp", "nas.scorers.gradient:grasp", "Wang et al., ICLR 2020", "module and images", _BACKWARD, True),
    Scorer("synflow", "nas.scorers.gradient:synflow", "Tanaka et al., NeurIPS 2020", "module", _BACKWARD, True),
    Scorer("zico", "nas.scorers.gradient:zico", "Li et al., ICLR 2023", "module and images", _BACKWARD, True),
    Scorer("zico_bc", "nas.scorers.gradient:zico_bc", "arXiv 2309.14666", "module and images", _BACKWARD, True),
    Scorer("swap", "nas.scorers.activation:swap", "Peng et al., ICLR 2024", "module and images", _FORWARD, True),
    Scorer("naswot", "nas.scorers.activation:naswot", "Mellor et al., ICML 2021", "module and images", _FORWARD, True),
    Scorer("jacov", "nas.scorers.activation:jacov", "Mellor et al., 2020", "module and images", _BACKWARD, True),
    Scorer("zen", "nas.scorers.activation:zen", "Lin et al., ICCV 2021", "module", _FORWARD, True),
    Scorer("meco", "nas.scorers.activation:meco", "Jiang et al., NeurIPS 2023", "module", _FORWARD, True),
    *(Scorer(name, **_AZNAS) for name in ("az_expressivity", "az_progressivity", "az_trainability")),
)

#: Ensembles -> the scorers and counts that they rank together.
ENSEMBLES: dict[str, tuple[str, ...]] = {
    "aznas": ("az_expressivity", "az_progressivity", "az_trainability", "macs"),
    "vote": ("synflow", "jacov", "snip"),
}

_ALL = (
    Scorer("mae", "nas.scorers.entropy:mae", "MAE-DET, arXiv 2111.13336", closed_form="Entropy"),
    Scorer("mae_neck", "nas.scorers.neck_entropy:mae_neck", "ours, after MAE-DET", closed_form="NeckEntropy"),
    Scorer("mae_residual", "nas.scorers.residual:mae_residual", "ours, after MAE-DET", closed_form="ResidualEntropy"),
    Scorer("effective_rank", "nas.scorers.residual:effective_rank", "ours", closed_form="EffectiveRank"),
    Scorer("level_balance", "nas.scorers.counts:level_balance", "ours", closed_form="LevelBalance"),
    Scorer("learned", "nas.scorers.learned:learned", "ours", closed_form="read_learned"),
    Scorer("deepmad", "nas.scorers.deepmad:deepmad", "DeepMAD, arXiv 2303.02165", closed_form="DeepMad"),
    Scorer("params", "nas.scorers.counts:params", "baseline", closed_form="PARAMS"),
    Scorer("macs", "nas.scorers.counts:macs", "baseline", closed_form="MACS"),
    Scorer("layers", "nas.scorers.counts:layers", "baseline", closed_form="LAYERS"),
    Scorer("random", "nas.scorers.counts:chance", "baseline"),
    *ZERO_COST,
)

SCORERS: dict[str, Scorer] = {scorer.name: scorer for scorer in _ALL}


def find_scorer(scorer: str | Callable[..., object]) -> Scorer:
    """The scorer of that name: a shipped one, `module:function`, or an installed entry point; or a function as a scorer.

    Raises UserError with the known names, and for an ensemble, which ranks networks among each other and scores none alone.
    """
    if not isinstance(scorer, str):
        return own_scorer(scorer)
    if scorer in SCORERS:
        return SCORERS[scorer]
    if scorer in ENSEMBLES:
        members = ", ".join(ENSEMBLES[scorer])
        raise UserError(f"{scorer} ranks networks among each other and scores none alone: take one of {members}")
    function = found(scorer, "scorer")
    if function is None:
        raise UserError(f"unknown scorer {scorer!r}; known: {', '.join([*SCORERS, *installed('scorer')])}")
    return own_scorer(cast(Callable[..., object], function), scorer)


def score_spec(
    spec: Spec, scorer: str | Callable[..., object] = "mae", image_size: int | None = None, **options: object
) -> float:
    """The score of a spec, on an image of `image_size` pixels (its own, or 640); one of modules sees the network built, from
    seed 0, and its options may say which `batch` of `inputs` (16 of "gaussian" noise).

    An option that is None is as good as not given. Raises UserError for a scorer that cannot judge specs, an unknown
    option, or an image size that the network cannot have.
    """
    chosen = find_scorer(scorer)
    chosen.check_options(options)
    given = {key: value for key, value in options.items() if value is not None}
    side = image_side(spec, image_size)
    if chosen.needs != "spec":
        from nas.scorers.measuring import score_built

        return score_built(chosen, spec, side, given)
    if "image_size" in chosen.options:  # the others do not depend on it
        given["image_size"] = side
    return number(chosen.name, chosen(spec, **given))
