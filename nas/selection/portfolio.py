"""Who enters a selection: near-optimal networks of several spaces under several scores, and drawn ones scaled to the budget.

All are inside the budget, use it up to a stated tolerance, and differ in shape. No score decides alone, and at least one
network that people drew takes part, so that the winner has something to be better than.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from nas.blocks.operation import CONVOLUTIONS
from nas.cost.budget import Budget
from nas.cost.count import peak_memory_mb
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.frame import Frame
from nas.lowering import backbone_operations
from nas.searchers.problem import Objective
from nas.searchers.run import run_search
from nas.searchers.settings import SearchSettings
from nas.spec import Backbone, DetectorSpec, Spec, backbone_of, digest
from search_spaces import SearchSpace, find_space
from search_spaces.drawings import fit_to_cost, hand_drawn
from search_spaces.tinynas import TinyNASSpace

#: (space, score) whose winners and near-optimal networks are proposed, the most promising first: what the bench of trained
#: detectors says of scores and spaces (experiments/detector_bench), where `mae` ranks equally fast networks backwards.
SEARCHED = (
    ("tinynas_kxkx", "effective_rank"), ("tinynas_k1kx", "effective_rank"), ("mixed", "effective_rank"),
    ("gelan", "effective_rank"), ("c3k2", "effective_rank"), ("tinynas_k1kx", "level_balance"), ("giraffe", "mae_neck"),
    ("tinynas_k1kx", "mae"), ("c3k2", "mae"), ("gelan", "mae"), ("tinynas_kxkx", "mae"),
)  # fmt: skip
#: Published and drawn backbones that are proposed, in turn.
DRAWN = (
    "damo-t", "yolo11-n", "yolov9-t", "damo-s", "resnet18", "inverse-pyramid", "wide-early", "damo-nano", "darknet53",
    "even-3", "deep-c4", "thin-bottleneck",
)  # fmt: skip
#: How many times as many evaluations a search gets that scores thousands of networks at once.
FAST = 25
#: Of three places, one is a drawn network's.
DRAWN_SHARE = 3
#: Shapes whose levels differ by less than this, in the logarithm of their work, count as one.
ALIKE = 0.05


@dataclass(frozen=True, slots=True)
class Finalist:
    """A detector that is to be trained.

    origin: `searched` (best of `space` under `score`, or near it) or `drawn` (by people, scaled to the budget); metrics:
    predicted costs of the whole detector.
    """

    name: str
    origin: Literal["searched", "drawn"]
    space: str
    score: str
    spec: DetectorSpec
    digest: str
    metrics: Mapping[str, float] = field(hash=False)


@dataclass(frozen=True)
class Proposal:
    """What decides the finalists: the budget and what prices it, the neck and head around every backbone, how many.

    tolerance: share that a finalist may leave unused of the limit that stops it (latency alone: all are equally fast);
    evaluations: of every search that scores networks one by one; one that scores thousands at once makes FAST times as many.
    """

    budget: Budget
    hardware: str
    frame: Frame
    candidates: Annotated[int, Ge(2), Le(1000)] = 16
    tolerance: Annotated[float, Ge(0.005), Le(0.5)] = 0.03
    evaluations: Annotated[int, Ge(100), Le(10_000_000)] = 4000
    seed: int = 0

    def finalists(self, say: Callable[[str], None] = lambda text: None) -> tuple[Finalist, ...]:
        """Up to `candidates` finalists, drawn ones and searched ones in turn; the same for the same settings.

        say: is told what is searched, and what does not reach the budget. Raises UserError where no drawn network fits
        the budget, or fewer than two networks do.
        """
        price = Price(self)
        drawn, searched = _drawn(price, say), _searched(price, say)
        found: list[Finalist] = []
        sources: list[Iterator[Finalist]] = [drawn, *[searched] * (DRAWN_SHARE - 1)]
        while sources and len(found) < self.candidates:
            source = sources[len(found) % len(sources)]
            new = next((item for item in source if all(unlike(item.spec, other.spec) for other in found)), None)
            if new is None:
                sources = [other for other in sources if other is not source]
            else:
                found.append(new)
        if not any(finalist.origin == "drawn" for finalist in found):
            raise UserError(f"no drawn network can be scaled to {self.budget}: a selection needs one to compare with")
        if len(found) < 2:
            raise UserError("only one network fits this budget: widen it, or raise tolerance")
        return tuple(found)


class Price:
    """Predicted costs of whole detectors, and how much of the budget they use."""

    def __init__(self, proposal: Proposal) -> None:
        self.proposal = proposal
        self.table = LatencyTable.load(proposal.hardware)
        self._objective = Objective(None, self.table, proposal.frame, limited=proposal.budget.metrics)
        if not any(high < math.inf for _, _, high in proposal.budget.ranges):
            raise UserError(
                f"a selection compares networks at one cost, and {proposal.budget} has no upper limit: add one"
            )

    def metrics(self, spec: Spec) -> dict[str, float]:
        """Every metric of a detector, or of a backbone in the frame."""
        values = self._objective.evaluate(spec)
        values.pop("score")
        if "peak_memory_mb" in self.proposal.budget.metrics:
            values["peak_memory_mb"] = peak_memory_mb(self.proposal.frame.detector(spec))
        return values

    def use(self, spec: Spec) -> float:
        """The largest share of an upper limit that a network uses; 1 is all of it."""
        return max(self.proposal.budget.use(self.metrics(spec)).values())

    def full(self, spec: Spec) -> bool:
        """Whether a network is inside the budget and uses up the limit that stops it."""
        return 1 - self.proposal.tolerance <= self.use(spec) and self.proposal.budget.admits(self.metrics(spec))

    def fitted(self, spec: Spec) -> Spec | None:
        """A network scaled by its widths to the budget, None where no width fits it."""
        half = self.proposal.tolerance / 2
        return fit_to_cost(spec, self.use, 1 - half, half)  # type: ignore[type-var]

    def finalist(self, name: str, origin: Literal["searched", "drawn"], space: str, score: str, spec: Spec) -> Finalist:
        """A finalist around a spec."""
        whole = self.proposal.frame.detector(spec)
        return Finalist(name, origin, space, score, whole, digest(whole), self.metrics(spec))


def _drawn(price: Price, say: Callable[[str], None]) -> Iterator[Finalist]:
    """Drawn backbones scaled to the budget."""
    drawings = hand_drawn()
    for name in DRAWN:
        spec = price.fitted(drawings[name])
        if spec is None or not price.full(spec):
            say(f"{name} cannot be scaled to the budget")
            continue
        yield price.finalist(name, "drawn", "", "", spec)


def _searched(price: Price, say: Callable[[str], None]) -> Iterator[Finalist]:
    """The best of every space under every score, then what is near them, in turn."""
    waiting: list[list[Finalist]] = []
    for space, score in SEARCHED:
        say(f"searching {space} under {score}")
        try:
            result = run_search(search_settings(price.proposal, space, score))
        except UserError as error:
            say(f"{space} under {score}: {error}")
            continue
        own_neck = isinstance(result.settings.space.initial(), DetectorSpec)
        found = result.best.spec if own_neck else backbone_of(result.best.spec)
        best = found if price.full(found) else price.fitted(found)
        if best is None or not price.full(best):
            say(f"{space} under {score}: its best does not use up the budget")
            continue
        label = f"{score}-{space}"
        others = (candidate.spec for candidate in (*result.near, *result.front[1:]))
        near = [spec for spec in others if price.full(spec)]
        waiting.append(
            [price.finalist(f"{label}-near{n}", "searched", space, score, spec) for n, spec in enumerate(near, 1)]
        )
        yield price.finalist(label, "searched", space, score, best)
    for place in range(max(map(len, waiting), default=0)):
        yield from (finalists[place] for finalists in waiting if place < len(finalists))


def search_settings(proposal: Proposal, space: str, score: str) -> SearchSettings:
    """The search of a space under a score, at the selection's image size; its neck is the frame's, or searched too."""
    members: SearchSpace[Spec] = find_space(space)
    frame, side = proposal.frame, proposal.frame.image_size
    if isinstance(members.initial(), DetectorSpec):
        head: dict[str, Any] = frame.head_fields()
        frame = Frame(image_size=side, **head)
        members = members.in_frame(frame).override(backbone={"image_size": side})
    else:
        members = members.override(image_size=side)
    return SearchSettings.of(
        proposal.budget,
        members,
        scorer=score,
        hardware=proposal.hardware,
        frame=frame,
        evaluations=proposal.evaluations * (FAST if isinstance(members, TinyNASSpace) else 1),
        seed=proposal.seed,
    )


def unlike(first: DetectorSpec, second: DetectorSpec) -> bool:
    """Whether two detectors differ in shape: other blocks, convolutions somewhere, or work spread otherwise."""
    kinds = [[type(block).__name__ for block in spec.backbone.blocks] for spec in (first, second)]
    profiles = [level_profile(spec.backbone, spec.image_size) for spec in (first, second)]
    if kinds[0] != kinds[1] or len(profiles[0]) != len(profiles[1]):
        return True
    depths, work = zip(*((count, math.log(macs)) for profile in profiles for count, macs in profile), strict=True)
    half = len(profiles[0])
    if depths[:half] != depths[half:] or first.neck.depth != second.neck.depth:
        return True
    widths = [math.log(width) for spec in (first, second) for width in spec.neck.out]
    gaps = [abs(a - b) for a, b in zip((*work[:half], *widths[:3]), (*work[half:], *widths[3:]), strict=True)]
    return sum(gaps) / len(gaps) > ALIKE


def level_profile(backbone: Backbone, image_size: int) -> list[tuple[int, int]]:
    """(convolutions, multiply-accumulates) of every level of a backbone, the stem's first."""
    found: dict[int, tuple[int, int]] = {}
    for level, group in zip((0, *backbone.levels), backbone_operations(backbone, image_size), strict=True):
        convolutions = [op for op in group if op.kind in CONVOLUTIONS]
        count, macs = found.get(level, (0, 0))
        found[level] = count + len(convolutions), macs + sum(op.macs for op in convolutions)
    return list(found.values())
