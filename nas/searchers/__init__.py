"""The search for the best network within a budget, and the plain values that it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from nas.cost.table_file import DEFAULT_TABLE
from nas.options import Count, Name, Seed, Threads


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """The plain values of a search.

    hardware: a table by name or path; scope: price the whole `detector` (backbone in its frame) or the bare `backbone`;
    workers: processes, which never change the result; evaluations: distinct candidates (the exact searcher needs no such
    limit); start: networks to begin with: published names, spec files, specs.
    """

    hardware: Name = DEFAULT_TABLE
    scope: Literal["detector", "backbone"] = "detector"
    seed: Seed = 0
    workers: Threads = 1
    evaluations: Count = 100_000
    start: tuple[Any, ...] = ()
