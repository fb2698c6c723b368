"""python -m nas.evaluate model=best.onnx data=FOLDER split=test: AP and milliseconds of a checkpoint or exported file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from nas.commands.evaluate import EvaluateCommand, evaluate_into
from nas.config import Job, launch

if TYPE_CHECKING:
    from nas.inference.scoring import Evaluation


def run(command: EvaluateCommand, job: Job) -> None:
    """Evaluate into Hydra's run folder and print the scores."""
    _show(Console(), evaluate_into(command, job.folder), command.rows, job.folder)


def _show(console: Console, result: Evaluation, rows: int, folder: Path) -> None:
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
    launch("evaluate", EvaluateCommand, run)
