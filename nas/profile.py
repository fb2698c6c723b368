"""python -m nas.profile hardware=my_device: measure, quickly calibrate or validate a latency table on this device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.config import launch
from nas.config.profile import ProfileConfig, settings_of


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
    print(f"table: {path}\nvalidate it:  python -m nas.profile hardware={settings.hardware} mode=validate")
    print(f"search with it:  python -m nas.search +budget.mine.latency_ms=100 hardware={path}")


if __name__ == "__main__":
    launch("profile", ProfileConfig, run)
