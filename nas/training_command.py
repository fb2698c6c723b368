"""What `python -m nas.train` does with its configuration: data report, training, score on the test split."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nas.config.train import FREE, TrainConfig, task_of
from nas.files import dump_yaml, write_atomic


def train_from_config(config: TrainConfig, folder: Path, plain: Any) -> None:
    """Train in `folder`, whose config.yaml keeps the composed settings `plain`; print what came out."""
    from nas.detection.evaluator import evaluate
    from nas.detection.training import run_training
    from nas.models.checkpoint import load_checkpoint

    first = int(os.environ.get("RANK", 0)) == 0
    task, test, report = task_of(config)
    if first and config.progress:
        for line in report.summary():
            print(line)
    if first and config.resume is None:
        write_atomic(folder / "config.yaml", dump_yaml({k: v for k, v in plain.items() if k not in FREE}))
    result = run_training(task, folder, config.resume is not None, config.progress)
    if not first:
        return
    print(
        f"{result.steps} steps in {result.seconds / 60:.1f} min; best val AP {result.score:.3f} (epoch {result.epoch})"
    )
    if test is not None:
        model = load_checkpoint(result.best)
        scores = evaluate(model.fuse(), test, model.image_size)
        write_atomic(folder / "test.json", dump_json(scores.as_dict()))
        print(f"test AP {scores.ap:.3f}  AP50 {scores.ap50:.3f}  AP75 {scores.ap75:.3f}  ({scores.images} images)")
    print(f"model: {result.best}")


def dump_json(data: Any) -> str:
    """Readable JSON with a line end."""
    import json

    return json.dumps(data, indent=1) + "\n"
