"""`python -m nas.compare`: detectors side by side, every number with its source."""

from __future__ import annotations

from nas.config.compare import CompareConfig, settings_of
from nas.config.launch import launch


def _run(config: CompareConfig) -> None:
    from omegaconf import OmegaConf

    from nas.commands.compare import run_comparison

    plain = OmegaConf.to_object(config)  # type: ignore[arg-type]
    assert isinstance(plain, CompareConfig)
    settings = settings_of(plain)
    print(run_comparison(settings))
    print(f"written to {settings.folder}: compare.md, compare.csv, compare.png, compare.html")


if __name__ == "__main__":
    launch("compare", CompareConfig, _run)
