"""Training by configuration, from the command line or from Python: data report, training, score on the test split."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.config.compose import compose_config
from nas.config.train import FREE, TrainConfig, task_of
from nas.files import dump_yaml, write_atomic

if TYPE_CHECKING:
    from nas.training.hooks import Hook
    from nas.training.run import TrainingResult


def train(
    model: str | Path, data: str, folder: str | Path | None = None, hooks: Sequence[Hook] = (), **options: Any
) -> TrainingResult:
    """Train, fine-tune or distil a detector; the same as `python -m nas.train model=... data=...`.

    model: a name, a spec file or a checkpoint; data: a name of conf/data; folder: where the run is left (default:
    outputs/train/DATE). options: settings of that command, nested by group (trainer={"epochs": 30},
    distill={"teacher": "..."}), or a group's file by name (trainer="cpu_small"). hooks: what watches the training
    (nas.training.hooks).
    """
    config = compose_config("train", TrainConfig, {"model": str(model), "data": data, **options})
    place = Path(folder or config.resume or Path("outputs/train") / time.strftime("%Y-%m-%d_%H-%M-%S"))
    return train_from_config(config, place, asdict(config), hooks)


def train_from_config(config: TrainConfig, folder: Path, plain: Any, hooks: Sequence[Hook] = ()) -> TrainingResult:
    """Train in `folder`, whose config.yaml keeps the composed settings `plain`; print what came out."""
    from nas.inference.evaluator import evaluate
    from nas.models.checkpoint import load_checkpoint
    from nas.training.run import run_training
    from nas.training.setup import device_kind

    first = int(os.environ.get("RANK", 0)) == 0
    task, test, report = task_of(config)
    if first and config.progress:
        for line in report.summary():
            print(line)
    if first and config.resume is None:
        write_atomic(folder / "config.yaml", dump_yaml({k: v for k, v in plain.items() if k not in FREE}))
    result = run_training(task, folder, config.resume is not None, config.progress, hooks)
    if not first:
        return result
    print(
        f"{result.steps} steps in {result.seconds / 60:.1f} min; best val AP {result.score:.3f} (epoch {result.epoch})"
    )
    if test is not None:
        model = load_checkpoint(result.best).to(device_kind(config.device))
        scores = evaluate(model.fuse(), test, model.image_size)
        write_atomic(folder / "test.json", json.dumps(scores.as_dict(), indent=1) + "\n")
        print(f"test AP {scores.ap:.3f}  AP50 {scores.ap50:.3f}  AP75 {scores.ap75:.3f}  ({scores.images} images)")
    print(f"model: {result.best}")
    return result
