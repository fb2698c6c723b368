"""Schema of `python -m nas.profile`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen
from omegaconf import MISSING

from nas.config.search import NeckConfig, frame_of, named
from nas.errors import UserError
from nas.measure.profiler import ProfileSettings
from nas.options import ImageSize, check_value
from search_spaces import changed_limits, find_space

Sides = Annotated[tuple[ImageSize, ...], MinLen(1)]


@dataclass
class ProfileConfig:
    """hardware: name of the table; runtime: onnxruntime, openvino, cuda, tensorrt; mode: measure, quick or validate.

    The table lies in `output`/<hardware>.json; `table` validates another file than that. image_size: one or several, the
    table then holds for all maps between; unless told 640, in validation those of the table.
    """

    hardware: str | None = None
    runtime: str = "onnxruntime"
    mode: str = "measure"
    threads: int = 1
    batch: int = 1
    space: dict[str, Any] = MISSING
    neck: NeckConfig = field(default_factory=NeckConfig)
    image_size: Any = None
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
    given = config["image_size"]
    sides = check_value("image_size", given if isinstance(given, list) else [640 if given is None else given], Sides)
    if given is None and config["mode"] == "validate":
        sides = ()
    name, limits = named(config["space"], "space")
    changed = changed_limits(find_space(name, **limits))
    plain["space"] = {"name": name, **{key: value for key, value in changed.items() if key in limits}}
    return ProfileSettings(
        folder=Path(config["output"]), frame=frame_of(config["neck"], 640), image_sizes=sides, **plain
    )
