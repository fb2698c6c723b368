"""Schema of `python -m nas.rank`."""

from __future__ import annotations

from dataclasses import dataclass, field


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

    networks: str | None = None
    benchmark: str | None = None
    tables: str | None = None
    scorers: list[str] = field(default_factory=lambda: ["synflow", "naswot", "zico", "meco", "aznas"])
    sample: int = 0
    seeds: int = 1
    spread_networks: int = 0
    spread_seeds: int = 5
    batch: int = 16
    inputs: str = "gaussian"
    image_size: int = 0
    seed: int = 0
    threads: int = 1
    resamples: int = 500
    published: str | None = None
    folder: str = "outputs/rank"
    progress: bool = True
