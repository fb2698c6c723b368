"""The scorers that need a torch module, as data, and the passes through a network that compute them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nas.errors import UserError
from nas.scorers.base import Cost, Scorer

_FORWARD: Cost = "forward"
_BACKWARD: Cost = "backward"

#: Functions take (module, images (B, 3, H, W), seed); those that need a module alone read the shape of the images.
ZERO_COST: tuple[Scorer, ...] = (
    Scorer("snip", "nas.scorers.gradient:snip", "Lee et al., ICLR 2019", "module and images", _BACKWARD, True),
    Scorer("grad_norm", "nas.scorers.gradient:grad_norm", "Abdelfattah 2021", "module and images", _BACKWARD, True),
    Scorer("fisher", "nas.scorers.gradient:fisher", "Theis et al., 2018", "module and images", _BACKWARD, True),
    Scorer("grasp", "nas.scorers.gradient:grasp", "Wang et al., ICLR 2020", "module and images", _BACKWARD, True),
    Scorer("synflow", "nas.scorers.gradient:synflow", "Tanaka et al., NeurIPS 2020", "module", _BACKWARD, True),
    Scorer("zico", "nas.scorers.gradient:zico", "Li et al., ICLR 2023", "module and images", _BACKWARD, True),
    Scorer("naswot", "nas.scorers.activation:naswot", "Mellor et al., ICML 2021", "module and images", _FORWARD, True),
    Scorer("jacov", "nas.scorers.activation:jacov", "Mellor et al., 2020", "module and images", _BACKWARD, True),
    Scorer("zen", "nas.scorers.activation:zen", "Lin et al., ICCV 2021", "module", _FORWARD, True),
    Scorer("meco", "nas.scorers.activation:meco", "Jiang et al., NeurIPS 2023", "module", _FORWARD, True),
    Scorer("az_expressivity", "nas.scorers.aznas:az_expressivity", "AZ-NAS, CVPR 2024", "module", _BACKWARD, True),
    Scorer("az_progressivity", "nas.scorers.aznas:az_progressivity", "AZ-NAS, CVPR 2024", "module", _BACKWARD, True),
    Scorer("az_trainability", "nas.scorers.aznas:az_trainability", "AZ-NAS, CVPR 2024", "module", _BACKWARD, True),
)


@dataclass(frozen=True, slots=True)
class Pass:
    """One trip through a network, and the scorers that it answers together."""

    name: str
    scorer: Scorer
    answers: tuple[str, ...]

    @property
    def reads_images(self) -> bool:
        return self.scorer.needs == "module and images"


#: Scorers that share their work: the function returns a dict of all of them.
_SHARED = {
    "first_order": ("nas.scorers.gradient:first_order", ("snip", "grad_norm", "fisher")),
    "aznas": ("nas.scorers.aznas:aznas_measures", ("az_expressivity", "az_progressivity", "az_trainability")),
}
#: Ensembles -> the scorers and counts that they rank together.
ENSEMBLES: dict[str, tuple[str, ...]] = {
    "aznas": ("az_expressivity", "az_progressivity", "az_trainability", "macs"),
    "vote": ("synflow", "jacov", "snip"),
}


def passes_for(names: Iterable[str], own: Sequence[Scorer] = ()) -> tuple[Pass, ...]:
    """The fewest passes that answer the named zero-cost scorers and ensembles, in a fixed order, and then one's own.

    Raises UserError with the known names for another name.
    """
    known = {scorer.name: scorer for scorer in ZERO_COST}
    wanted: set[str] = set()
    for name in names:
        members = ENSEMBLES.get(name, (name,))
        wanted.update(member for member in members if member != "macs")
        if name not in known and name not in ENSEMBLES:
            raise UserError(f"unknown zero-cost scorer {name!r}; known: {', '.join([*known, *ENSEMBLES])}")
    result = []
    for name, (path, answers) in _SHARED.items():
        if wanted & set(answers):
            first = known[answers[0]]
            shared = Scorer(name, path, first.source, first.needs, first.cost, True)
            result.append(Pass(name, shared, answers))
            wanted -= set(answers)
    result += [Pass(name, known[name], (name,)) for name in known if name in wanted]
    return (*result, *(Pass(scorer.name, scorer, (scorer.name,)) for scorer in own))
