"""python -m nas.predict model=best.safetensors source=photos/: boxes on pictures and videos, drawn and as COCO results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from nas.config import Job, launch
from nas.deploy import EXPORTED
from nas.inference import PredictCommand

if TYPE_CHECKING:
    from nas.inference.predictor import Prediction
    from nas.inference.run import PredictionRun


def run(command: PredictCommand, job: Job) -> None:
    """Predict into Hydra's run folder and print what was found."""
    from nas.detector import Detector
    from nas.inference.run import predict_into

    console = Console()
    detector = Detector.load(command.model)
    if hasattr(detector.network, "origin"):
        console.print(str(detector.network.origin), soft_wrap=True, highlight=False, markup=False)
    elif not command.model.endswith(EXPORTED):
        console.print(
            f"{command.model} is an architecture: its weights are random and so are its boxes", style="yellow"
        )

    def report(prediction: Prediction) -> None:
        if prediction.error:
            console.print(f"skipped: {prediction.error}", style="red", markup=False, highlight=False, soft_wrap=True)

    _show(console, predict_into(detector, command, job.folder, report), command.rows)


def _show(console: Console, result: PredictionRun, rows: int) -> None:
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
    launch("predict", PredictCommand, run)
