"""python -m nas.profile hardware=my_device: measure, quickly calibrate or validate a latency table on this device."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.config import launch
from nas.config.profile import ProfileConfig, settings_of
from nas.config.search import offer_spaces


def run(config: Any) -> None:
    """Profile with a composed configuration."""
    from omegaconf import OmegaConf

    from nas.cost.table_file import find_table
    from nas.measure.profiler import measure_table
    from nas.measure.validate import validate_table

    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    settings = settings_of({str(key): value for key, value in plain.items()})
    if settings.mode == "validate":
        table = find_table(config.table or settings.table_path)
        print(f"{table}: {validate_table(settings, table)}")
        return
    path: Path = measure_table(settings)
    print("\n".join([f"table: {path}", *next_commands(path, given_overrides())]))


def given_overrides() -> list[str]:
    """The settings that the command line gave, as it gave them."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def next_commands(path: Path, overrides: Sequence[str]) -> list[str]:
    """How to validate the table and to search with it: the same settings, and half of its networks within the limit."""
    from nas.cost.table_file import read_table

    header, _ = read_table(path)
    side = header.image_sizes[-1]
    again = [text for text in overrides if not text.startswith("mode=")]
    kept = [text for text in overrides if text.startswith(("space", "neck"))]
    limit = header.provenance["median_ms"][str(side)]
    search = [f"+budget.mine.latency_ms={limit:g}", f"hardware={path}", f"image_size={side}", *kept]
    return [
        f"validate it:  {shlex.join(['python', '-m', 'nas.profile', *again, 'mode=validate'])}",
        f"search with it:  {shlex.join(['python', '-m', 'nas.search', *search])}",
    ]


if __name__ == "__main__":
    offer_spaces()
    launch("profile", ProfileConfig, run)
