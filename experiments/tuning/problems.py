"""What is swept: settings of evolution, on three problems apart from the five on which searchers are compared."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from experiments.searchers.problems import Case


class Setting(NamedTuple):
    """Options of `searcher=evolution`; the batch of a generation follows from the population (nas.searchers.evolution)."""

    population: int
    crossover: float
    minor_from: int

    def __str__(self) -> str:
        return f"population {self.population}, crossover {self.crossover:g}, minor_from {self.minor_from:,}"


class Run(NamedTuple):
    """A search: problem, setting, seed, evaluations."""

    case: str
    setting: Setting
    seed: int
    evaluations: int


@dataclass(frozen=True)
class Tuned:
    """A problem and the evaluations of its runs; quick: whole populations are scored at once."""

    case: Case
    evaluations: int
    quick: bool


#: No space, score and limit together are those of experiments/searchers.
CASES: Mapping[str, Tuned] = {
    "k1kx rank": Tuned(
        Case("tinynas_k1kx", "effective_rank", {"flops_g": 30.0}, "another score, operations"), 20_000, True
    ),
    "kxkx latency": Tuned(Case("tinynas_kxkx", "mae", {"latency_ms": 4.0}, "another limit"), 20_000, True),
    "gelan latency": Tuned(Case("gelan", "mae", {"latency_ms": 4.0}, "one candidate at a time"), 5_000, False),
}
#: conf/searcher/evolution.yaml, and evaluations of conf/search.yaml.
SHIPPED, LONG = Setting(512, 0.3, 50_000), 100_000
SETTINGS = tuple(Setting(*each) for each in itertools.product((64, 256, 512), (0.0, 0.3, 0.6), (2_500, 50_000)))
