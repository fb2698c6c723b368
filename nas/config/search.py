"""Schema of `python -m nas.search`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class NeckConfig:
    """Neck, head and what they share; `out` null takes the widths of C3, C4, C5."""

    depth: int = 3
    out: list[int] | None = None
    hidden_ratio: list[float] = field(default_factory=lambda: [0.75, 0.75, 0.75])
    activation: str = "relu"
    depthwise: bool = False
    fusion: str = "elan"
    extra_down: bool = True
    extra_up: bool = False
    num_classes: int = 80
    reg_max: int = 16
    head_kernel: int = 3
    head_stacked: int = 0


@dataclass
class SearchConfig:
    """`budget` has no default: each file of conf/budget adds one named limit, and +budget.mine.latency_ms=2.5 another.

    space: `name` and any of the space's limits; scorer and searcher: `name` and their options; scope: whole `detector`
    or bare `backbone`; resume: the folder of an interrupted run, alone.
    """

    budget: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = MISSING
    scorer: dict[str, Any] = MISSING
    searcher: dict[str, Any] = MISSING
    neck: NeckConfig = field(default_factory=NeckConfig)
    hardware: str = "t4_tensorrt_fp16"
    scope: str = "detector"
    image_size: int = 640
    seed: int = 0
    workers: int = 1
    evaluations: int = 100_000
    resume: str | None = None
    progress: bool = True
