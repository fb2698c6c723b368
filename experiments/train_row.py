"""Trains and scores one row of a table in a process of its own: python -m experiments.train_row TABLE ROW SEED SCALE FOLDER."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments.command import run
from experiments.scales import load_scale, training_task
from experiments.tables import load_table
from nas.errors import UserError
from nas.files import write_atomic
from nas.measure.device import commit


def train_row(
    table_name: str, row_name: str, seed: int, scale_name: str, folder: Path, teacher: Path | None, data: str
) -> dict[str, Any]:
    """Train (or go on), score on the test split, and return the line for results/*.csv."""
    import torch

    from nas.detection.evaluator import evaluate
    from nas.detection.training import run_training
    from nas.models.checkpoint import load_checkpoint

    table, scale = load_table(table_name), load_scale(scale_name)
    task, test = training_task(table, table.row(row_name), seed, scale, teacher, data)
    result = run_training(task, folder, resume=(folder / "last.state").exists(), progress=False)
    started = time.perf_counter()
    model = load_checkpoint(result.best if result.best.exists() else result.last)
    device = "cuda" if torch.cuda.is_available() and scale.device == "gpu" else "cpu"
    found = evaluate(model.to(device).eval(), test, image_size=scale.image_size, batch_size=16)
    return {
        "table": table_name,
        "row": row_name,
        "scale": scale_name,
        "seed": seed,
        "data": data,
        "ap": round(float(found.ap), 5),
        "ap50": round(float(found.ap50), 5),
        "steps": result.steps,
        "train_seconds": result.seconds,
        "seconds": round(result.seconds + time.perf_counter() - started, 1),  # of all sittings
        "device": torch.cuda.get_device_name()
        if device == "cuda"
        else f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "commit": commit()[:12],
        "date": time.strftime("%Y-%m-%d"),
    }


def main(arguments: list[str]) -> None:
    """Train, and leave the line in result.json; UserError if another process is at it."""
    table, row, seed, scale, folder, teacher, data = arguments
    try:
        with FileLock(Path(folder) / "lock", timeout=0):
            line = train_row(table, row, int(seed), scale, Path(folder), Path(teacher) if teacher else None, data)
            write_atomic(Path(folder) / "result.json", json.dumps(line) + "\n")
    except Timeout:
        raise UserError(f"another process trains in {folder}") from None


if __name__ == "__main__":
    run(main)
