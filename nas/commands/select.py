"""What `python -m nas.select` is told, and the selection that it makes in a folder: propose, plan, train, decide, deploy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Gt, Le

from nas.augment.pipeline import Augmentation
from nas.commands.search import limits_of
from nas.config import continued, store_settings
from nas.cost.table_file import DEFAULT_TABLE
from nas.data.sources import DataConfig
from nas.errors import UserError
from nas.frame import NeckOptions
from nas.options import CountOrNone, ImageSize, Name, Seed, Threads
from nas.training.options import TrainerOptions

if TYPE_CHECKING:
    from nas.commands.select_files import SelectionResult

#: What may differ between a run and its continuation.
FREE = ("resume", "workers", "progress", "storage", "lease")


@dataclass(frozen=True, kw_only=True)
class SelectCommand:
    """`budget`, hardware and neck as in a search; data, trainer and augmentation as in a training.

    candidates: how many networks are trained in the first rung; epochs: of a whole training, or minutes: as many as fit
    into them, which is reckoned once from the time of a few batches; seeds: trainings of every network of the last rung;
    factor: of the networks of a rung one in `factor` goes on. tolerance: share of the budget that a network may leave
    unused; evaluations: of each search for candidates that proves nothing. weights: a checkpoint whose entries that fit are
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


def select_in(command: SelectCommand, folder: Path, given: Sequence[str] = ()) -> SelectionResult:
    """Select in `folder`, or go on with (or join) the selection to resume; `given`: the settings of the command line.

    Raises UserError for whatever cannot be done, before anything is trained; KeyboardInterrupt after a signal, with
    everything saved.
    """
    from nas.commands.select_files import verdict
    from nas.commands.select_screen import Selection
    from nas.models.checkpoint import read_header
    from nas.training.loggers import make_loggers

    if command.resume is not None:
        folder = Path(command.resume)
        command = continued(command, given, FREE, ("loggers",))
    limits_of(command.budget)
    if (command.minutes is None) == (not command.epochs):
        raise UserError("say how long to train: minutes=60, or epochs=30 of a whole training (not both)")
    if command.weights is not None:
        read_header(command.weights)  # refused now and not after the search for candidates
    make_loggers(command.loggers, command.trainer.log_steps)  # likewise
    selection = Selection(command, folder)
    if command.resume is None:
        if (folder / "finalists.json").exists():
            raise UserError(f"{folder} already holds a selection: resume={folder} goes on with it")
        store_settings(command, folder, FREE)
    try:
        result = selection.run()
    except KeyboardInterrupt:
        print(f"stopped; go on with: python -m nas.select resume={folder}", flush=True)
        raise
    for line in verdict(result):
        print(line, flush=True)
    print(f"report: {folder / 'report.html'}", flush=True)
    return result
