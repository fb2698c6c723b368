"""Schema of `python -m nas.compare`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class CompareConfig:
    """models: names, spec files, checkpoints, exported files, mixed at will; group: seeds, every published row.

    hardware: a latency table; image_size: pixels, null for each model's own; scorer: a training-free score of the
    specs, "" for none; measure: also time each here (repeats runs on threads threads); ap: AP in percent of our own
    runs by model; folder: where compare.md, .csv, .png and .html go.
    """

    models: list[str] = field(default_factory=list)
    group: str | None = None
    hardware: str = "t4_tensorrt_fp16"
    image_size: int | None = None
    scorer: str = "mae"
    measure: bool = False
    repeats: int = 10
    threads: int = 1
    ap: dict[str, float] = field(default_factory=dict)
    folder: str = "outputs/compare"
