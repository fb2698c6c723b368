"""The published TinyNAS search problems of DAMO-YOLO, as this project states them.

The bare backbone on 640 pixels (the official program counts from the 320 behind Focus), the MAE score with level
weights 0, 0, 1, 1, 16, the official V100 table at batch 32, every block free. `optimum` is what an independent dynamic
programme over latency bins of 2 ns found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nas.cost.budget import Budget
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.scorers.entropy import Entropy
from nas.searchers.problem import Objective
from nas.searchers.problem.vectorized import GeneProblem
from search_spaces.tinynas import SPACES


@dataclass(frozen=True)
class OfficialProblem:
    """A space, its limits (layers, ms per image), the published score, what to reach, and the known optimum."""

    space: str
    layers: int
    latency_ms: float
    published: float
    target: float
    optimum: float

    def build(self, table: LatencyTable) -> GeneProblem:
        """The problem on a table that was loaded once."""
        budget = Budget.of({"layers": self.layers, "latency_ms": self.latency_ms})
        return GeneProblem(SPACES[self.space], Objective(Entropy(), table), budget)


PROBLEMS: Mapping[str, OfficialProblem] = {
    "tiny": OfficialProblem("official_tiny", 20, 0.08, 1015.14, 1034.0, 1040.22),
    "small": OfficialProblem("official_small", 25, 0.12, 1380.59, 1392.0, 1400.19),
    "medium": OfficialProblem("official_medium", 35, 0.40037, 2293.56, 2300.0, 2332.2),
}


def chosen(name: str) -> OfficialProblem:
    """The problem of that name; raises UserError with the known names."""
    if name not in PROBLEMS:
        raise UserError(f"unknown problem {name!r}; known: {', '.join(PROBLEMS)}")
    return PROBLEMS[name]


def load_table(path: str) -> LatencyTable:
    """The official table; raises UserError if no path was given."""
    if not path or not Path(path).exists():
        raise UserError("give the official table: table=PATH (v100_fp16_damoyolo.txt of the TinyNAS program)")
    return LatencyTable.load(path)
