"""One search from settings to a result: the plain function behind `python -m nas.search` and `nas.find`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cost.budget import Budget, Limited
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.files import save_spec
from nas.frame import Frame
from nas.options import Pixels, check_fields, check_value, unknown
from nas.report.canvas import ACCENT, PALE, WARM, Shown, canvas, label
from nas.scorers import find_scorer
from nas.scorers.formula import formula_of
from nas.searchers import SearchOptions
from nas.searchers.base import Candidate, Searcher
from nas.searchers.catalog import check_searcher, make_problem, member_of, search_with, searcher_name
from nas.searchers.limits import least_cost, limit_notes
from nas.searchers.loop import Progress, SearchOutcome
from nas.searchers.problem.specs import SpecProblem
from nas.spec import DetectorSpec, Spec, digest, image_side, require_side, to_dict
from search_spaces import SearchSpace, find_space

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SearchSettings(SearchOptions):
    """Everything that decides the result of a search, and `workers`, which does not.

    scorer, searcher: names, or one's own: a function of a spec or of a module; a class or function that makes a searcher.
    """

    budget: Budget
    space: SearchSpace[Spec]
    scorer: str | Callable[..., object] = "mae"
    scorer_options: Mapping[str, object] = field(default_factory=dict)
    searcher: str | Callable[..., Searcher] = "auto"
    searcher_options: Mapping[str, object] = field(default_factory=dict)
    frame: Frame = field(default_factory=Frame)

    @classmethod
    def of(
        cls,
        budget: Mapping[str, object] | Budget,
        space: str | SearchSpace[Spec] | type[SearchSpace[Spec]] = "tinynas_k1kx",
        **options: object,
    ) -> SearchSettings:
        """Settings from plain values; raises UserError for an unknown space or option."""
        strange = set(options) - set(cls.__dataclass_fields__)
        if strange:
            raise unknown("a search", min(strange), list(cls.__dataclass_fields__))
        limits = budget if isinstance(budget, Budget) else Budget.of(budget, str(options.get("hardware", cls.hardware)))
        made: Callable[..., SearchSettings] = cls  # what the options are is checked behind
        return made(limits, find_space(space), **options).checked()

    def checked(self) -> SearchSettings:
        """Itself, with the space in its frame; raises UserError for a value that cannot be used."""
        frame = asdict(self.frame)
        check_value("image_size", frame.pop("image_size"), Pixels)
        check_fields(Frame, frame, "neck")
        check_fields(type(self), {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "frame"})
        first = self.space.initial()
        image_side(first, self.frame.image_size) if self.scope == "backbone" else require_side(self.frame.image_size)
        if isinstance(first, DetectorSpec) and self.scope != "detector":
            raise UserError(f"space {self.space.name} holds whole detectors: it has no scope=backbone")
        behind = [name for name in self.budget.metrics if Limited.of(name).part in ("neck", "head")]
        if behind and self.scope == "backbone":
            raise UserError(f"a limit on {behind[0]}: with scope=backbone there is no {Limited.of(behind[0]).part}")
        check_searcher(self.searcher, self.searcher_options)
        space = self.space.in_frame(self.frame)
        return replace(self, space=space, start=tuple(member_of(given, space) for given in self.start))

    @property
    def scorer_name(self) -> str:
        """The score's name in results."""
        return find_scorer(self.scorer).name

    @property
    def searcher_name(self) -> str:
        """The searcher's name in results."""
        return searcher_name(self.searcher)

    @property
    def score_digest(self) -> str:
        """Digest of the file that the score is read from; empty without one."""
        formula = formula_of(find_scorer(self.scorer), self.scorer_options)
        return formula.digest if formula is not None else ""

    @property
    def other_tables(self) -> dict[str, str]:
        """Digests of the latency tables that limits name beside the search's own."""
        names = {cost.hardware for cost in map(Limited.of, self.budget.metrics) if cost.hardware}
        return {name: LatencyTable.load(name).digest for name in sorted(names)}

    @property
    def identity(self) -> str:
        """A digest of everything that decides the result."""
        return self._digest_without("workers")

    @property
    def course(self) -> str:
        """What a resumed run must share: a digest of all that decides the result but how far the search goes."""
        return self._digest_without("workers", "evaluations")

    def _digest_without(self, *names: str) -> str:
        left_out = (*names, "start", "scorer_options", "searcher_options")
        values: dict[str, Any] = {
            name: repr(getattr(self, name)) for name in self.__dataclass_fields__ if name not in left_out
        }
        if self.start:
            values["start"] = [digest(spec) for spec in self.start]
        values |= {
            "scorer": repr(self.scorer_name),
            "searcher": repr(self.searcher_name),
            "scorer_options": sorted(self.scorer_options.items()),
            "searcher_options": sorted(self.searcher_options.items()),
        }
        if self.score_digest:
            values["score_digest"] = self.score_digest
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


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
