"""Loggers: hooks that hand the numbers of a training to TensorBoard, Weights & Biases or MLflow."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from nas.errors import UserError
from nas.files import read_text, write_atomic
from nas.training.averaging import Validation
from nas.training.hooks import Hook, Speed, Step, TrainingView


class Scalars(Hook):
    """Base: losses and rate of every `every`-th step, speed, and scores, by name; `tell` takes them."""

    def __init__(self, every: int) -> None:
        self._every = every

    def tell(self, numbers: Mapping[str, float], step: int) -> None:
        """Numbers by name after so many steps."""
        raise NotImplementedError

    def on_step_end(self, view: TrainingView, step: Step) -> None:
        if step.number % self._every == 0 or step.number == 1:
            losses = dict(step.losses) | {"total": step.total}
            self.tell(
                {f"loss/{name}": value for name, value in losses.items()} | {"schedule/lr": step.rate}, step.number
            )

    def on_epoch_end(self, view: TrainingView, speed: Speed) -> None:
        numbers = {"speed/images_per_second": speed.images_per_second, "speed/memory_mb": speed.memory_mb}
        self.tell(numbers, view.position.step)

    def on_validation(self, view: TrainingView, validation: Validation) -> None:
        self.tell({f"val/{name}": value for name, value in validation.numbers.items()}, view.position.step)


class TensorBoard(Scalars):
    """Events in the folder `tensorboard`; pictures and curves of every validation too."""

    def on_train_begin(self, view: TrainingView) -> None:
        step = view.position.step
        self._board = SummaryWriter(str(view.folder / "tensorboard"), purge_step=step + 1 if step else None)

    def tell(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._board.add_scalar(name, value, step)

    def on_validation(self, view: TrainingView, validation: Validation) -> None:
        super().on_validation(view, validation)
        step = view.position.step
        for name, image in validation.images.items():
            self._board.add_image(name, image, step, dataformats="HWC")
        for name, (recall, precision) in validation.curves.items():
            zeros = np.zeros_like(recall)
            self._board.add_pr_curve_raw(
                f"pr/{name}", zeros, zeros, zeros, zeros, precision, recall, step, num_thresholds=len(recall)
            )

    def on_checkpoint(self, view: TrainingView, path: Path) -> None:
        self._board.flush()

    def on_train_end(self, view: TrainingView, error: BaseException | None) -> None:
        self._board.close()


class WeightsAndBiases(Scalars):
    """A run of the project `maenas`, with pictures; WANDB_MODE=offline keeps it in the folder `wandb`.

    The run's id lies in `wandb.id`, so that a resumed training goes on in the same run.
    """

    def on_train_begin(self, view: TrainingView) -> None:
        import wandb

        name = _known(view.folder / "wandb.id") or uuid4().hex[:8]
        write_atomic(view.folder / "wandb.id", name)
        self._run: Any = wandb.init(
            project="maenas", name=view.folder.name, dir=str(view.folder), id=name, resume="allow", reinit="create_new"
        )

    def tell(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def on_validation(self, view: TrainingView, validation: Validation) -> None:
        import wandb

        super().on_validation(view, validation)
        pictures = {name: wandb.Image(image) for name, image in validation.images.items()}
        self._run.log(pictures, step=view.position.step)

    def on_train_end(self, view: TrainingView, error: BaseException | None) -> None:
        self._run.finish(exit_code=0 if error is None else 1)


class MLflow(Scalars):
    """A run of the experiment `maenas`, where MLFLOW_TRACKING_URI says, else in `mlflow.db` of the folder.

    The run's id lies in `mlflow.id`, so that a resumed training goes on in the same run.
    """

    def on_train_begin(self, view: TrainingView) -> None:
        from mlflow.tracking import MlflowClient

        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(view.folder / 'mlflow.db').resolve()}"
        self._client: Any = MlflowClient(place)
        self._run = _known(view.folder / "mlflow.id")
        if not self._run:
            found = self._client.get_experiment_by_name("maenas")
            experiment = found.experiment_id if found else self._client.create_experiment("maenas")
            self._run = self._client.create_run(experiment, run_name=view.folder.name).info.run_id
            write_atomic(view.folder / "mlflow.id", self._run)

    def tell(self, numbers: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [
            Metric(re.sub(r"[^\w\-. :/]", "_", name), float(value), now, step) for name, value in numbers.items()
        ]
        self._client.log_batch(self._run, metrics=metrics)

    def on_train_end(self, view: TrainingView, error: BaseException | None) -> None:
        stopped = isinstance(error, KeyboardInterrupt)
        self._client.set_terminated(self._run, "FINISHED" if error is None else "KILLED" if stopped else "FAILED")


def _known(path: Path) -> str:
    """The id in a file; empty without one."""
    return read_text(path).strip() if path.is_file() else ""


#: Name -> logger, and the package that it needs beside those of every installation.
LOGGERS: dict[str, tuple[type[Scalars], str]] = {
    "tensorboard": (TensorBoard, ""),
    "wandb": (WeightsAndBiases, "wandb"),
    "mlflow": (MLflow, "mlflow"),
}


def make_loggers(names: Sequence[str], every: int) -> list[Hook]:
    """The loggers of these names; UserError for an unknown one, or one whose package is not installed."""
    for name in names:
        if name not in LOGGERS:
            raise UserError(f"loggers: there is no {name!r}; known: {', '.join(LOGGERS)}")
        package = LOGGERS[name][1]
        if package and find_spec(package) is None:
            raise UserError(f"loggers: {name} is not installed; pip install 'maenas[{name}]'")
    return [LOGGERS[name][0](every) for name in dict.fromkeys(names)]
