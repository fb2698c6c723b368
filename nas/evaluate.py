"""python -m nas.evaluate model=best.safetensors data=bccd split=test : AP and milliseconds of one artefact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.config import launch
from nas.config.evaluate import EvaluateConfig


def run(config: Any) -> None:
    """Evaluate into Hydra's run folder and print the scores."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf
    from rich.console import Console

    from nas.commands.evaluate import evaluate_into

    settings = OmegaConf.to_object(config)
    assert isinstance(settings, EvaluateConfig)
    folder = Path(HydraConfig.get().runtime.output_dir)
    _show(Console(), evaluate_into(settings, folder), settings.rows, folder)


def _show(console: Any, result: Any, rows: int, folder: Path) -> None:
    from rich.table import Table

    table = Table("class", "boxes", "AP", "AP50")
    for name, score in sorted(result.per_class.items(), key=lambda item: -item[1].boxes)[:rows]:
        table.add_row(name, str(score.boxes), f"{score.ap:.3f}", f"{score.ap50:.3f}")
    if len(result.per_class) > rows:
        table.add_row(f"... {len(result.per_class) - rows} more", "", "", "")
    console.print(table, markup=False)
    numbers = "  ".join(f"{name} {value:.3f}" for name, value in result.numbers.items())
    console.print(f"{result.images} images  {numbers}", highlight=False)
    times = "  ".join(f"{name} {value:.2f} ms" for name, value in result.milliseconds.items())
    console.print(f"{times}\n{folder}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    launch("evaluate", EvaluateConfig, run)
