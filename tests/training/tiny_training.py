"""A tiny detector, drawn data and a script: trainings of a few steps for the tests, also in processes of their own."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from nas.augment.pipeline import Augmentation
from nas.data.coco import read_coco
from nas.data.shapes import draw_shapes
from nas.loss import LossOptions
from nas.spec import Backbone, DetectorSpec, HeadSpec, NeckSpec, Residual, Stem
from nas.training.options import EmaOptions, OptimizerOptions, ScheduleOptions, TrainerOptions
from nas.training.run import TrainingResult, run_training
from nas.training.task import TrainingTask


def tiny_spec(width: int = 8, image_size: int = 64) -> DetectorSpec:
    blocks = tuple(Residual("k1kx", out=width * scale, bottleneck=width, depth=1, stride=2) for scale in (1, 2, 2, 3))
    backbone = Backbone(Stem("focus", width), blocks, (1, 2, 3), reparam=True)
    return DetectorSpec(backbone, NeckSpec((width, width, width), depth=1), HeadSpec(5, reg_max=7), image_size)


def shapes(root: Path, images: int = 24) -> Any:
    draw_shapes(root, counts={"train": images, "val": 6}, size=96)
    read = [read_coco(root / f"annotations/{s}.json", root / f"images/{s}", "shapes", s)[0] for s in ("train", "val")]
    return read


def options(**changes: Any) -> TrainerOptions:
    plain: dict[str, Any] = dict(epochs=3, batch_size=4, workers=0, evaluate_every=2, device="cpu") | changes
    plain.pop("device")
    return TrainerOptions(
        **plain,
        optimizer=OptimizerOptions(lr=0.02),
        schedule=ScheduleOptions(warmup_epochs=1, tail_epochs=1),
        ema=EmaOptions(0.9, 5.0),
    )


def tiny_task(root: Path, changes: dict[str, Any] | None = None, augment: bool = True, **others: Any) -> TrainingTask:
    train, val = shapes(root)
    augmentation = Augmentation(closing_epochs=1, scale=(0.5, 1.5)) if augment else Augmentation.plain()
    return TrainingTask(tiny_spec(), train, val, options(**(changes or {})), augmentation, device="cpu", **others)


def train_tiny(
    folder: Path, resume: bool = False, copies: int = 0, loss: dict[str, Any] | None = None, **settings: Any
) -> TrainingResult:
    """copies: train on one picture, that many times over, as it is; loss: changes to the defaults."""
    task = tiny_task(settings.pop("root", folder.parent / "shapes"), **settings)
    if copies:
        task.train = task.train.subset([0] * copies)
        task.augmentation, task.val = Augmentation.plain(), None
    task.options.loss = LossOptions(**(loss or {}))
    return run_training(task, folder, resume, progress=False)


def run(root: Path, folder: Path, changes: dict[str, Any] | None = None, **others: Any) -> TrainingResult:
    return run_training(tiny_task(root, changes, **others), folder, progress=False)


def steps(folder: Path) -> list[dict[str, str]]:
    """The rows of steps.csv."""
    return list(csv.DictReader((folder / "steps.csv").open()))


def main() -> None:
    """FOLDER SETTINGS [kill=STEP]: train in this process; with kill, die without warning after that step."""
    settings = json.loads(sys.argv[2])
    if len(sys.argv) > 3:
        from nas.training import guards

        last, add = int(sys.argv[3]), guards.LossGuard.add

        def dying(self: Any, step: int, *rest: Any) -> None:
            add(self, step, *rest)
            if step == last:
                os.kill(os.getpid(), signal.SIGKILL)

        guards.LossGuard.add = dying  # type: ignore[method-assign]
    root = settings.pop("root", None)
    extra = {"root": Path(root)} if root else {}
    train_tiny(Path(sys.argv[1]), **settings, **extra)


if __name__ == "__main__":
    main()
