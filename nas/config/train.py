"""Schema of `python -m nas.train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from nas.augment.pipeline import Augmentation
from nas.config.data import DataConfig
from nas.errors import UserError
from nas.options import ImageSize, Name, OneOf, Seed
from nas.training.options import FREE_OPTIONS, DistillOptions, TrainerOptions

if TYPE_CHECKING:
    from nas.training.run import TrainingTask

#: What may differ between a run and its continuation.
FREE = ("resume", "device", "progress", *(f"trainer.{name}" for name in FREE_OPTIONS))


@dataclass
class TrainConfig:
    """model: a published or baseline name, a spec file (best.yaml), or a checkpoint to fine-tune.

    image_size null: the model's own; resume: the folder of an interrupted run, alone; test: also score the best
    checkpoint on the data's test split.
    """

    model: Name = "damo-yolo-t"
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    distill: DistillOptions = field(default_factory=DistillOptions)
    image_size: ImageSize | None = None
    seed: Seed = 0
    device: Annotated[str, OneOf("auto", "cpu", "cuda")] = "auto"
    test: bool = True
    resume: Name | None = None
    progress: bool = True


def task_of(config: TrainConfig) -> tuple[TrainingTask, Any, Any]:
    """The task of a composed configuration, the data's test split (or None), and the data report.

    Raises UserError for data that cannot be used.
    """
    from nas.data.sources import load_splits
    from nas.training.run import TrainingTask

    splits, report = load_splits(config.data, ("train", "val", "test") if config.test else ("train", "val"))
    if "train" not in splits:
        raise UserError(
            f"data {config.data.name} has no training split: set data.train.images and data.train.annotations"
        )
    task = TrainingTask(
        config.model,
        splits["train"],
        splits.get("val"),
        config.trainer,
        config.augmentation,
        config.distill,
        config.image_size,
        config.seed,
        config.device,
    )
    return task, splits.get("test"), report
