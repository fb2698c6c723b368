"""Schema of `python -m nas.rank`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Le, MinLen

from nas.options import CountOrNone, Name, OneOf, Seed, Threads


@dataclass
class RankConfig:
    """Give `networks` or `benchmark`.

    networks: a published name, a spec file, or a YAML list of them (entries may carry accuracies: {model: X, ap: .4});
    benchmark: nasbench201 or nasbench_macro, from the tables in the folder `tables`;
    scorers: any of nas.scorers, and the ensembles aznas and vote; counts are always added;
    sample: networks of the benchmark, in a seeded order (0: all); seeds: repeats of every network; spread_networks: of
    the first so many networks spread_seeds repeats; batch, inputs (gaussian, or a folder of pictures), image_size (0:
    the network's own): what scorers see; folder: where results go, and go on after an interruption.
    """

    networks: Name | None = None
    benchmark: Annotated[str, OneOf("nasbench201", "nasbench_macro")] | None = None
    tables: Name | None = None
    scorers: Annotated[list[Name], MinLen(1)] = field(
        default_factory=lambda: ["synflow", "naswot", "zico", "meco", "aznas"]
    )
    sample: CountOrNone = 0
    seeds: Annotated[int, Ge(1), Le(1_000_000)] = 1
    spread_networks: CountOrNone = 0
    spread_seeds: Annotated[int, Ge(0), Le(1_000_000)] = 5
    batch: Annotated[int, Ge(1), Le(65_536)] = 16
    inputs: Name = "gaussian"
    image_size: Annotated[int, Ge(0), Le(8192)] = 0
    seed: Seed = 0
    threads: Threads = 1
    resamples: Annotated[int, Ge(0), Le(1_000_000)] = 500
    published: Name | None = None
    folder: Name = "outputs/rank"
    progress: bool = True
