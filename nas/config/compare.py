"""Schema of `python -m nas.compare`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from nas.config.search import named
from nas.options import Name, Pixels, Threads

if TYPE_CHECKING:
    from nas.commands.compare import CompareSettings


@dataclass
class CompareConfig:
    """models: names, spec files, checkpoints, exported files, mixed at will; group: seeds, every published row.

    hardware: a latency table; image_size: pixels, null for each model's own; scorer: `name` and options of a
    training-free score of the specs (conf/scorer), ~scorer for none; measure: also time each here (repeats runs on threads
    threads); ap: AP in percent of our own runs by model; folder: where compare.md, .csv, .png and .html go.
    """

    models: list[Name] = field(default_factory=list)
    group: Name | None = None
    hardware: Name = "t4_tensorrt_fp16"
    image_size: Pixels | None = None
    scorer: dict[str, Any] | None = None
    measure: bool = False
    repeats: Annotated[int, Ge(1), Le(1_000_000)] = 10
    threads: Threads = 1
    ap: dict[str, Annotated[float, Ge(0), Le(100)]] = field(default_factory=dict)
    folder: Name = "outputs/compare"


def settings_of(config: CompareConfig) -> CompareSettings:
    """The settings of a composed configuration. Raises UserError for a scorer without a name."""
    from nas.commands.compare import CompareSettings

    values = {key: getattr(config, key) for key in CompareConfig.__dataclass_fields__}
    scorer, options = named(config.scorer, "scorer") if config.scorer is not None else ("", {})
    changed = {"models": tuple(config.models), "folder": Path(config.folder)}
    return CompareSettings(**values | changed | {"scorer": scorer, "scorer_options": options})
