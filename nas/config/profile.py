"""Schema of `python -m nas.profile`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from nas.config.search import NeckConfig
from nas.errors import UserError
from nas.frame import Frame
from nas.measure.profiler import ProfileSettings


@dataclass
class ProfileConfig:
    """hardware: name of the table; runtime: onnxruntime, openvino, cuda, tensorrt; mode: measure, quick or validate.

    The table lies in `output`/<hardware>.json; `table` validates another file than that.
    """

    hardware: str | None = None
    runtime: str = "onnxruntime"
    mode: str = "measure"
    threads: int = 1
    batch: int = 1
    space: dict[str, Any] = MISSING
    neck: NeckConfig = field(default_factory=NeckConfig)
    image_size: int = 640
    time_limit_s: float = 600.0
    networks: int = 160
    validation_networks: int = 24
    repetitions: int = 9
    seed: int = 0
    output: str = MISSING
    table: str | None = None


def settings_of(config: dict[str, Any]) -> ProfileSettings:
    """The settings of a composed configuration. Raises UserError without a name for the table."""
    if not config["hardware"]:
        raise UserError("name the table: python -m nas.profile hardware=my_device")
    plain = {key: value for key, value in config.items() if key not in ("neck", "image_size", "output", "table")}
    neck = dict(config["neck"])
    neck["hidden_ratio"] = tuple(neck["hidden_ratio"])
    neck["out"] = tuple(neck["out"]) if neck["out"] is not None else None
    frame = replace(Frame(**neck), image_size=config["image_size"])
    return ProfileSettings(folder=Path(config["output"]), frame=frame, **plain)
