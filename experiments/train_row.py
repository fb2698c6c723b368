"""One row of a table, trained and scored: python -m experiments.train_row table=report_assigner row=TOOD scale=cpu10 seed=1.

Every value of the scale can be overridden (scale.trainer.epochs=10), but what makes the row stays; rows and seeds can be
swept (-m row=ATSS,TOOD seed=0,1,2; quote names with other signs than letters: "row='CSP + reparam'"). The run folder holds
the checkpoints and result.json; the same line goes on where it was interrupted. Tables are filled by `experiments.run`.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments.data import data_of
from experiments.scales import RowConfig, training_task
from experiments.tables import FOLDER, load_table
from nas.config import launch
from nas.errors import UserError
from nas.files import write_atomic
from nas.measure.device import commit


def train_row(config: RowConfig, folder: Path) -> dict[str, Any]:
    """Train (or go on), score on the test split, and return the line for results/*.csv."""
    import torch

    from nas.detection.evaluator import evaluate
    from nas.detection.training import run_training
    from nas.models.checkpoint import load_checkpoint

    table, scale = load_table(config.table), config.scale
    row, data = table.row(config.row), config.data or data_of(scale)
    if row.teacher and config.teacher is None:
        raise UserError(f"row {row.name!r} is taught by {row.teacher!r}: train that first and give teacher=ITS_CHECKPOINT")
    teacher = Path(config.teacher) if config.teacher else None
    task, test = training_task(table, row, config.seed, scale, teacher, data)
    result = run_training(task, folder, resume=(folder / "last.state").exists(), progress=False)
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


def finish_row(config: RowConfig, folder: Path) -> None:
    """Train, and leave the line in result.json; UserError if another process is at it."""
    try:
        with FileLock(folder / "lock", timeout=0):
            line = train_row(config, folder)
            write_atomic(folder / "result.json", json.dumps(line) + "\n")
    except Timeout:
        raise UserError(f"another process trains in {folder}") from None


def _run(config: Any) -> None:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    settings = OmegaConf.to_object(config)
    assert isinstance(settings, RowConfig)
    finish_row(settings, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    launch("row", RowConfig, _run, str(FOLDER))
