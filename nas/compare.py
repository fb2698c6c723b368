"""`python -m nas.compare`: detectors side by side, every number with its source."""

from __future__ import annotations

from pathlib import Path

from nas.config.compare import CompareConfig
from nas.config.launch import launch


def _run(config: CompareConfig) -> None:
    from omegaconf import OmegaConf

    from nas.comparison import CompareSettings, run_comparison

    plain = OmegaConf.to_container(config, resolve=True)  # type: ignore[arg-type]
    assert isinstance(plain, dict)
    values = {str(key): value for key, value in plain.items()}
    settings = CompareSettings(**values | {"models": tuple(values["models"]), "folder": Path(values["folder"])})
    print(run_comparison(settings))
    print(f"written to {settings.folder}: compare.md, compare.csv, compare.png, compare.html")


if __name__ == "__main__":
    launch("compare", CompareConfig, _run)
