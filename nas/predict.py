"""python -m nas.predict model=best.safetensors source=pictures/ : boxes on pictures, COCO results, a table."""

from __future__ import annotations

from typing import Any

from nas.config import launch
from nas.config.predict import PredictConfig


def run(config: Any) -> None:
    """Predict into Hydra's run folder and print what was found."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf
    from rich.console import Console

    from nas.deploy import EXPORTED
    from nas.detector import Detector
    from nas.inference.run import predict_into

    console = Console()
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    rows = settings.pop("rows")
    model, source = settings.pop("model"), settings.pop("source")
    detector = Detector.load(model)
    if hasattr(detector.network, "origin"):
        console.print(str(detector.network.origin), soft_wrap=True, highlight=False, markup=False)
    elif not str(model).endswith(EXPORTED):
        console.print(f"{model} is an architecture: its weights are random and so are its boxes", style="yellow")
    folder = HydraConfig.get().runtime.output_dir
    result = predict_into(detector, source, folder, progress=_reporter(console), **settings)
    _show(console, result, rows)


def _reporter(console: Any) -> Any:
    def report(prediction: Any) -> None:
        if prediction.error:
            console.print(f"skipped: {prediction.error}", style="red", markup=False, highlight=False, soft_wrap=True)

    return report


def _show(console: Any, result: Any, rows: int) -> None:
    from rich.table import Table

    table = Table("picture", "pixels", "found")
    good = [row for row in result.rows if not row.error]
    for row in good[:rows]:
        found = ", ".join(f"{count} {name}" for name, count in row.found.items())
        table.add_row(row.name, f"{row.width} x {row.height}", found or "-")
    if len(good) > rows:
        table.add_row(f"... and {len(good) - rows} more", "", "")
    console.print(table, markup=False)
    rate = 1000 * result.seconds / max(len(good), 1)
    console.print(f"{len(good)} pictures, {len(result.errors)} skipped, {rate:.1f} ms each with reading and writing")
    for path in (result.results, result.pictures):
        if path is not None:
            console.print(str(path), soft_wrap=True, highlight=False)


if __name__ == "__main__":
    launch("predict", PredictConfig, run)
