"""Everything that decides a search, checked before any work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from nas.cost.budget import Budget, Limited
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.frame import Frame
from nas.options import Pixels, check_fields, check_value, unknown
from nas.scorers import find_scorer
from nas.scorers.formula import formula_of
from nas.searchers import SearchOptions
from nas.searchers.base import Searcher
from nas.searchers.catalog import check_searcher, member_of, searcher_name
from nas.spec import DetectorSpec, Spec, digest, image_side, require_side
from search_spaces import SearchSpace, find_space


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
