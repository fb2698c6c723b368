"""Schema of `python -m nas.search`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nas.config.launch import config_folder
from nas.errors import UserError, shown
from nas.extensions import Kind, is_reference, loaded
from nas.files import read_yaml
from nas.options import Pixels, check_fields, check_value

if TYPE_CHECKING:
    from nas.frame import Frame
    from nas.searchers.run import SearchSettings


#: What may be one's own.
GROUPS: tuple[Kind, ...] = ("space", "scorer", "searcher")
#: What may differ between a run and its continuation.
FREE = ("resume", "workers", "progress")


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

    space: `name` and any of the space's limits; scorer and searcher: `name` and their options (a shipped name,
    `module:attribute`, or an installed entry point); scope: whole `detector` or bare `backbone`; resume: the folder of an
    interrupted run, alone.
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


def offer_spaces() -> None:
    """Let Hydra choose every shipped space by name, with each of its limits as a field."""
    from hydra.core.config_store import ConfigStore

    from search_spaces import find_space, space_names

    for name in space_names():
        ConfigStore.instance().store(group="space", name=name, node={"name": name, **find_space(name).limits()})


def settings_of(plain: dict[str, Any]) -> SearchSettings:
    """The settings of a composed configuration; raises UserError in one line for whatever is wrong with it."""
    from nas.searchers.run import SearchSettings
    from search_spaces import find_space

    space, scorer, searcher = (named(plain[group], group) for group in ("space", "scorer", "searcher"))
    return SearchSettings.of(
        budget=limits_of(plain["budget"]),
        space=find_space(space[0], **space[1]),
        scorer=scorer[0],
        scorer_options=scorer[1],
        searcher=searcher[0],
        searcher_options=searcher[1],
        hardware=plain["hardware"],
        frame=frame_of(plain["neck"], plain["image_size"]),
        scope=plain["scope"],
        seed=plain["seed"],
        workers=plain["workers"],
        evaluations=plain["evaluations"],
    )


def frame_of(neck: dict[str, Any], image_size: Any) -> Frame:
    """The frame of the neck group; UserError for a value that cannot be."""
    from nas.frame import Frame

    values = check_fields(Frame, neck, "neck", ("image_size",))
    return Frame(**values, image_size=check_value("image_size", image_size, Pixels))


def limits_of(budget: dict[str, Any]) -> dict[str, float]:
    """{metric: limit} of the budget group, whose entries are named limits; two limits on one metric are refused."""
    if not budget:
        names = sorted(path.stem for path in (Path(config_folder()) / "budget").glob("*.yaml"))
        raise UserError(f"no budget: add +budget=NAME (or '+budget=[NAME,NAME]'); there are {', '.join(names)}")
    limits: dict[str, float] = {}
    for name, entry in budget.items():
        pairs = entry if isinstance(entry, dict) else {name: entry}
        for metric, limit in pairs.items():
            if metric in limits:
                raise UserError(f"two limits on {metric}: {shown(limits[metric])} and {shown(limit)}; keep one")
            limits[metric] = limit
    return limits


def stored_config(folder: str) -> dict[str, Any]:
    """The configuration of an earlier run, for `resume`."""
    path = Path(folder) / "config.yaml"
    if not path.is_file():
        raise UserError(f"nothing to resume in {folder}: there is no config.yaml; give the folder of a search")
    stored = read_yaml(path)
    if not isinstance(stored, dict) or set(SearchConfig.__dataclass_fields__) - set(stored) - set(FREE):
        raise UserError(f"{path} is not the configuration of a search")
    try:
        check_fields(SearchConfig, stored)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    for kind in GROUPS:
        name = named(stored[kind], kind)[0]
        if is_reference(name):
            loaded(name, kind, str(path))
    return stored


def override_names(overrides: Sequence[str]) -> list[str]:
    """The keys of command-line overrides."""
    return [override.split("=")[0].lstrip("+~") for override in overrides]


def named(entry: dict[str, Any], group: str) -> tuple[str, dict[str, Any]]:
    """Name and options of a chosen part; raises UserError without a name."""
    if not isinstance(entry.get("name"), str):
        raise UserError(f"{group} needs a name")
    return entry["name"], {key: value for key, value in entry.items() if key != "name"}
