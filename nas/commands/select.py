"""What `python -m nas.select` is told, and the selection that it makes in a folder: propose, plan, train, decide, deploy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from nas.augment.pipeline import Augmentation
from nas.cost.table_file import DEFAULT_TABLE
from nas.data.sources import DataConfig
from nas.frame import NeckOptions
from nas.options import CountOrNone, ImageSize, Name, Seed, Threads
from nas.training.options import TrainerOptions

#: What may differ between a run and its continuation, and what stays unless it is given.
FREE = ("resume", "workers", "progress", "storage", "lease")
ALSO = ("loggers",)


@dataclass(frozen=True, kw_only=True)
class SelectCommand:
    """`budget`, hardware and neck as in a search; data, trainer and augmentation as in a training.

    candidates: how many networks are trained in the first rung; epochs: of a whole training, or minutes: as many as fit
    into them, which is reckoned once from the time of a few batches; seeds: trainings of every network of the last rung;
    factor: of the networks of a rung one in `factor` goes on. tolerance: share of the budget that a network may leave
    unused; evaluations: of each search for candidates (see Proposal). weights: a checkpoint whose entries that fit are
    the start of every training. workers: processes of this machine; storage: of
    Optuna, for several machines that share the folder (None: a file in it); lease: seconds after which a worker without a
    sign of life loses its training. loggers: of every training, beside steps.csv and epochs.jsonl: any of tensorboard,
    wandb, mlflow. resume: the folder of a selection that goes on, or that this process joins, alone.
    """

    budget: dict[str, Any] = field(default_factory=dict)
    hardware: Name = DEFAULT_TABLE
    neck: NeckOptions = field(default_factory=NeckOptions)
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    image_size: ImageSize = 640
    candidates: Annotated[int, Ge(2), Le(1000)] = 16
    epochs: CountOrNone = 0
    minutes: Annotated[float, Gt(0), Le(1e6)] | None = None
    seeds: Annotated[int, Ge(1), Le(100)] = 1
    factor: Annotated[float, Ge(2), Le(10)] = 3.0
    tolerance: Annotated[float, Ge(0.005), Le(0.5)] = 0.03
    evaluations: Annotated[int, Ge(100), Le(10_000_000)] = 4000
    weights: Name | None = None
    seed: Seed = 0
    device: str = "auto"
    workers: Threads = 1
    storage: Name | None = None
    lease: Annotated[float, Ge(1), Le(1e6)] = 30.0
    loggers: list[Name] = field(default_factory=lambda: ["tensorboard"])
    resume: Name | None = None
    progress: bool = True
