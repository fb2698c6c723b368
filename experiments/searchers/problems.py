"""The five problems on which searchers are compared, whole detectors at 640 pixels with the default neck and table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nas.cost.latency import LatencyTable
from nas.searchers.base import Problem
from nas.searchers.catalog import make_problem
from nas.searchers.settings import SearchSettings
from search_spaces import find_space
from search_spaces.tinynas import TinyNASSpace


@dataclass(frozen=True)
class Case:
    """A space, a score and limits, with a word on what is particular about it."""

    space: str
    scorer: str
    limits: Mapping[str, float]
    note: str

    @property
    def searchers(self) -> tuple[str, ...]:
        """Those that serve the space: Optuna's suggestions are the genes of a TinyNAS space."""
        general = ("random", "evolution", "nsga2")
        return (*general, "optuna") if isinstance(find_space(self.space), TinyNASSpace) else general

    def problem(self) -> Problem:
        """The problem anew, with nothing priced yet, so that every run pays for its own prices."""
        settings = SearchSettings.of(dict(self.limits), self.space, scorer=self.scorer)
        table, frame = LatencyTable.load(settings.hardware), settings.frame
        return make_problem(settings.space, settings.budget, self.scorer, {}, table, frame, frame.image_size)


CASES: Mapping[str, Case] = {
    "k1kx latency": Case("tinynas_k1kx", "mae", {"latency_ms": 3.0}, "the default search"),
    "k1kx two limits": Case("tinynas_k1kx", "mae", {"latency_ms": 3.0, "params_m": 9.0}, "both limits bind"),
    "kxkx operations": Case("tinynas_kxkx", "mae", {"flops_g": 50.0}, "two 3x3 a unit, up to 35 layers"),
    "tiny parameters": Case("official_tiny", "params", {"latency_ms": 2.0}, "a count as the score"),
    "c3k2 parameters": Case("c3k2", "mae", {"params_m": 10.0}, "hand-drawn stages, one candidate at a time"),
}
