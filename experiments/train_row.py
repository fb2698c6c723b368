"""One row of a table, trained and scored: python -m experiments.train_row table=report_assigner row=TOOD scale=cpu10 seed=1.

Every value of the scale can be overridden (scale.trainer.epochs=10), but what makes the row stays; everything can be swept
(-m row=ATSS,TOOD seed=0,1,2; quote names with other signs than letters: "row='CSP + reparam'"). The run folder holds the
checkpoints and result.json; hydra.run.dir=FOLDER with the same settings goes on where a run was interrupted. Several
processes: torchrun --nproc-per-node 8 -m experiments.train_row ... The tables are filled by `experiments.run`.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments.scales import RowConfig, data_of, require_device, training_recipe, training_task
from experiments.tables import FOLDER, load_table
from nas.config import launch
from nas.cost.table_file import cpu_name
from nas.errors import UserError
from nas.files import write_atomic
from nas.measure import commit


def train_row(config: RowConfig, folder: Path) -> dict[str, Any] | None:
    """Train (or go on), score on the test split, and return the line for results/*.csv; None in all processes but the first."""
    import torch

    from nas.inference.evaluator import evaluate
    from nas.models.checkpoint import load_checkpoint
    from nas.training.run import run_training
    from nas.training.state import resumable

    table, scale = load_table(config.table), config.scale
    row, data = table.row(config.row), config.data or data_of(scale)
    require_device(scale)
    if row.teacher and config.teacher is None:
        raise UserError(
            f"row {row.name!r} is taught by {row.teacher!r}: train that first and give teacher=ITS_CHECKPOINT"
        )
    teacher = Path(config.teacher) if config.teacher else None
    task, test = training_task(table, row, config.seed, scale, teacher, data)
    result = run_training(task, folder, resume=resumable(folder), progress=False)
    if not first_process():
        return None
    started = time.perf_counter()
    model = load_checkpoint(result.best if result.best.exists() else result.last)
    device = "cuda" if torch.cuda.is_available() and scale.device == "gpu" else "cpu"
    found = evaluate(model.to(device).eval(), test, image_size=scale.image_size, batch_size=16)
    return {
        "table": table.name,
        "row": row.name,
        "scale": scale.name,
        "seed": config.seed,
        "data": data,
        "recipe": training_recipe(table, row, scale),
        "ap": round(float(found.ap), 5),
        "ap50": round(float(found.ap50), 5),
        "steps": result.steps,
        "train_seconds": result.seconds,
        "seconds": round(result.seconds + time.perf_counter() - started, 1),  # of all sittings
        "device": torch.cuda.get_device_name()
        if device == "cuda"
        else f"{cpu_name()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "commit": commit()[:12],
        "date": time.strftime("%Y-%m-%d"),
    }


def finish_row(config: RowConfig, folder: Path) -> None:
    """Train, and leave the line in result.json; UserError if another training is at it."""
    if not first_process():
        train_row(config, folder)
        return
    try:
        with FileLock(folder / "lock", timeout=0):
            line = train_row(config, folder)
            write_atomic(folder / "result.json", json.dumps(line) + "\n")
    except Timeout:
        raise UserError(f"another process trains in {folder}") from None


def first_process() -> bool:
    """Whether this is the process of torchrun that writes, or the only one."""
    return int(os.environ.get("RANK", 0)) == 0


if __name__ == "__main__":
    launch("row", RowConfig, lambda config, job: finish_row(config, job.folder), str(FOLDER))
