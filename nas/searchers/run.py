"""One search from settings to a result: the plain function behind `python -m nas.search` and `nas.find`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.files import save_spec
from nas.report.canvas import ACCENT, PALE, WARM, Shown, canvas, label
from nas.searchers.base import Candidate
from nas.searchers.catalog import make_problem, search_with
from nas.searchers.limits import least_cost, limit_notes
from nas.searchers.loop import Progress, SearchOutcome
from nas.searchers.problem.specs import SpecProblem
from nas.searchers.settings import SearchSettings
from nas.spec import DetectorSpec, digest, to_dict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SearchResult(Shown):
    """What a search found; `best.spec` is the whole detector, or the backbone with scope=backbone.

    The picture has every candidate (pale if it is outside the budget), the front and the winner, over the limited cost.
    """

    settings: SearchSettings
    table: LatencyTable
    best: Candidate
    front: tuple[Candidate, ...]
    outcome: SearchOutcome
    notes: tuple[str, ...]

    @property
    def near(self) -> tuple[Candidate, ...]:
        """Networks of other shapes that exact search found within `outcome.near_share` of the best score."""
        return tuple(whole(self.settings, candidate) for candidate in self.outcome.near)

    @property
    def proof(self) -> str:
        """What an exact search proves, in one line; empty otherwise."""
        certificate = self.outcome.certificate
        if certificate is None:
            return ""
        return (
            f"no member of space {self.settings.space.name} within the limits scores more than {certificate.upper:.6f} "
            f"(gap {certificate.gap:.2g}, {certificate.architectures:,} architectures covered)"
        )

    @property
    def binding(self) -> list[str]:
        """Limits that the winner uses up to within 2 %."""
        return self.settings.budget.binding(self.best.metrics)

    def __repr__(self) -> str:
        limits = ", ".join(
            f"{name} {self.best.metrics[name]:.4g}{f' >= {low:g}' * bool(low)}{f' <= {high:g}' * (high < math.inf)}"
            for name, low, high in self.settings.budget.ranges
        )
        score = f"{self.settings.scorer_name} {self.best.score:.6g}{', proved' * bool(self.outcome.certificate)}"
        return f"SearchResult({self.settings.space.name}: {score}; {limits}; {len(self.front)} on the front)"

    def to_dict(self) -> dict[str, object]:
        front = [{"metrics": dict(c.metrics), "digest": c.digest, "spec": to_dict(c.spec)} for c in self.front]
        known = {
            "space": self.settings.space.name,
            "limits": self.settings.budget.to_dict(),
            "seed": self.settings.seed,
        }
        told = {"hardware": self.table.name, "proof": self.proof, "notes": list(self.notes)}
        return {**known, "scorer": self.settings.scorer_name, **told, "best": front[0], "front": front}

    def save(self, path: str | Path) -> Path:
        """As .yaml the winner, which `nas.load` and `model=` read; else the data (.json) or the picture (.png ...)."""
        if Path(path).suffix not in (".yaml", ".yml"):
            return super().save(path)
        return save_spec(path, self.best.spec, name=self.settings.space.name, metrics=self.best.metrics)

    def plot(self) -> Figure:
        metric = self.settings.budget.metrics[0]
        history = self.outcome.history
        rows = history.sample(4000)
        cost, score, inside = (history.column(name)[rows] for name in (metric, "score", "excess"))
        figure, ((axes,),) = canvas(1, 1, 6, 3.6)
        for chosen, colour in ((inside > 0, "#e9e2db"), (inside == 0, PALE)):
            axes.plot(cost[chosen], score[chosen], ".", ms=2, color=colour)
        front = sorted((c.metrics[metric], c.score) for c in self.front)
        axes.plot(*zip(*front, strict=True), "o-", ms=3, lw=1, color=ACCENT)
        axes.plot(self.best.metrics[metric], self.best.score, "*", ms=11, color=WARM)
        for _, *ends in self.settings.budget.ranges[:1]:
            for end in ends:
                if 0 < end < math.inf:
                    axes.axvline(end, color=WARM, lw=0.8, ls="--")
        label(axes, f"space {self.settings.space.name}", metric, f"{self.settings.scorer_name} score")
        return figure


def run_search(
    settings: SearchSettings,
    state: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> SearchResult:
    """Search; raises UserError before any long work for what cannot succeed, and after it if nothing fits.

    KeyboardInterrupt if it was interrupted before anything fitted.

    state: a file to resume from, kept up to date; see `nas.searchers.loop.run_loop`.
    """
    table = LatencyTable.load(settings.hardware)
    check_possible(settings, table)
    problem = make_problem(
        settings.space,
        settings.budget,
        settings.scorer,
        settings.scorer_options,
        table,
        settings.frame if settings.scope == "detector" else None,
        settings.frame.image_size,
        settings.workers,
    )
    identity = "-".join([settings.course, table.digest, *settings.other_tables.values()])
    try:
        if state is not None and isinstance(problem, SpecProblem):
            problem.remember(state.with_suffix(".scores.jsonl"), identity)
        outcome = search_with(
            settings.searcher,
            settings.searcher_options,
            problem,
            settings.evaluations,
            settings.seed,
            state=state,
            identity=identity,
            on_progress=on_progress,
            start=settings.start,
        )
    finally:
        problem.close()
    if outcome.best is None:
        if outcome.interrupted:
            raise KeyboardInterrupt
        raise UserError(f"{_nothing(settings, outcome)}; {_remedy(settings)}")
    front = tuple(whole(settings, candidate) for candidate in outcome.front)
    best = front[0]
    notes = limit_notes(settings.space, settings.budget, best, outcome)
    return SearchResult(settings, table, best, front, outcome, tuple(notes))


def whole(settings: SearchSettings, candidate: Candidate) -> Candidate:
    """The candidate as what is searched for: a detector, unless the scope is the bare backbone."""
    if settings.scope == "backbone" or isinstance(candidate.spec, DetectorSpec):
        return candidate
    spec = settings.frame.detector(candidate.spec)
    return replace(candidate, spec=spec, digest=digest(spec))


def check_possible(settings: SearchSettings, table: LatencyTable) -> None:
    """Raise UserError if no network of the space can stay within some limit."""
    frame = settings.frame if settings.scope == "detector" else None
    for metric, _, high in settings.budget.ranges:
        least = least_cost(metric, settings.space, frame, settings.frame.image_size, table)
        if least > high * (1 + 1e-9):
            raise UserError(
                f"impossible budget: {metric} <= {high:g}, but no network of space {settings.space.name} has less than "
                f"{least:.4g}; {_remedy(settings)}"
            )


def _nothing(settings: SearchSettings, outcome: SearchOutcome) -> str:
    """What is known where nothing was found: that nothing exists, or only that nothing was met with."""
    if outcome.impossible:
        return f"no member of space {settings.space.name} fits the budget (proven)"
    unproven = f" (whether any member does is unproven: {outcome.unproven})" if outcome.unproven else ""
    return f"nothing among {outcome.evaluated} candidates fits the budget{unproven}"


def _remedy(settings: SearchSettings) -> str:
    """What helps when nothing fits."""
    framed = settings.scope == "detector" and not isinstance(settings.space.initial(), DetectorSpec)
    framed = framed and not {"layers", "rho"}.issuperset(settings.budget.metrics)  # those are the backbone's alone
    smaller = ", take a smaller neck (neck=t, neck=nano)" if framed else ""
    return f"loosen it{smaller} or widen space {settings.space.name}"
