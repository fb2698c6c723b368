"""What watches a training: hooks are told everything that happens, and nothing that they get reaches the training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from nas.errors import UserError
from nas.files import read_text, write_atomic
from nas.training.averaging import Validation as Validation
from nas.training.state import Position, TrainingParts


@dataclass(frozen=True)
class TrainingView:
    """What a hook may read of a running training: copies alone.

    folder: where the run lies; epochs: as many as were asked for; steps_per_epoch: optimiser steps of a whole one.
    """

    folder: Path
    epochs: int
    steps_per_epoch: int
    _parts: TrainingParts = field(repr=False)

    @property
    def position(self) -> Position:
        """Steps and seconds so far, and the best validation."""
        return replace(self._parts.position)

    @property
    def epoch(self) -> int:
        """How many epochs are over."""
        return self._parts.loader.sampler.epoch

    def weights(self, average: bool = True) -> dict[str, Tensor]:
        """The detector's state on the training's device: the average that is evaluated, or what is being trained."""
        model = self._parts.ema.model if average else self._parts.network.detector
        return {name: value.detach().clone() for name, value in model.state_dict().items()}


@dataclass(frozen=True)
class Step:
    """An optimiser step (from 1) of a running epoch (from 1): learning rate, and the loss terms' means over processes."""

    number: int
    epoch: int
    rate: float
    losses: Mapping[str, float]

    @property
    def total(self) -> float:
        """The loss that was minimised."""
        return sum(self.losses.values())


@dataclass(frozen=True)
class Speed:
    """Images a second over an epoch (or what was left of it on resuming), and the peak of memory in MB, NaN where not told."""

    images_per_second: float
    memory_mb: float


class Hook:
    """Base of what watches a training; override what you want to be told of.

    Hooks are called in the order in which they were given, in the first process alone. They may draw random numbers:
    every step seeds its own, and no result changes. An error of theirs ends the training, with what was saved last.
    """

    def on_train_begin(self, view: TrainingView) -> None:
        """Before the first step, or where a resumed run goes on."""

    def on_epoch_begin(self, view: TrainingView, epoch: int) -> None:
        """Before the steps of `epoch` (from 1), or of what is left of it."""

    def on_step_end(self, view: TrainingView, step: Step) -> None:
        """After a step, in order; a GPU's losses are read, and so told, while the next step computes."""

    def on_epoch_end(self, view: TrainingView, speed: Speed) -> None:
        """After the steps of an epoch, before its validation."""

    def on_validation(self, view: TrainingView, validation: Validation) -> None:
        """After the averaged weights were scored, before they are saved."""

    def on_checkpoint(self, view: TrainingView, path: Path) -> None:
        """After `last.safetensors` (with the full state beside it) or `best.safetensors` was written."""

    def on_train_end(self, view: TrainingView, error: BaseException | None) -> None:
        """At the end of all; `error` is what ended it early, KeyboardInterrupt after Ctrl-C or SIGTERM."""


STEPS, EPOCHS = "steps.csv", "epochs.jsonl"


class LogFiles(Hook):
    """steps.csv and epochs.jsonl; rows that the state of a killed run does not know of are cut off.

    They hold nothing that depends on time: a resumed run leaves the same bytes as one that was never interrupted.
    """

    def on_train_begin(self, view: TrainingView) -> None:
        last, validated = view.position.step, view.position.validated  # a later validation will be done again
        view.folder.mkdir(parents=True, exist_ok=True)
        _cut(view.folder / STEPS, lambda line: not line[0].isdigit() or int(line.split(",", 1)[0]) <= last)
        _cut(view.folder / EPOCHS, lambda line: _row(line, view.folder / EPOCHS)["step"] <= validated)
        # By lines: a state that is saved never knows more steps than the files.
        self._steps, self._epochs = (
            (view.folder / name).open("a", encoding="utf-8", buffering=1) for name in (STEPS, EPOCHS)
        )

    def on_step_end(self, view: TrainingView, step: Step) -> None:
        if self._steps.tell() == 0:
            self._steps.write(",".join(["step", "epoch", "lr", *step.losses, "total"]) + "\n")
        numbers = (step.number, step.epoch, step.rate, *step.losses.values(), step.total)
        self._steps.write(",".join(map(repr, numbers)) + "\n")

    def on_validation(self, view: TrainingView, validation: Validation) -> None:
        row = {"step": view.position.step, "epoch": view.epoch} | dict(validation.numbers)
        self._epochs.write(json.dumps(row) + "\n")

    def on_train_end(self, view: TrainingView, error: BaseException | None) -> None:
        self._steps.close()
        self._epochs.close()


def read_epochs(folder: Path) -> list[dict[str, float]]:
    """The validations of the training in a folder, in order: step, epoch and scores of each; none where none was yet."""
    path = folder / EPOCHS
    return [_row(line, path) for line in read_text(path).splitlines()] if path.is_file() else []


def _row(line: str, path: Path) -> dict[str, float]:
    try:
        row = json.loads(line)
        return {str(name): value + 0 for name, value in row.items() if row["epoch"] >= 0}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(f"{path} is damaged: a line holds no validation; delete that line") from None


class Screen(Hook):
    """A progress bar on a terminal, a line for every validation, and where an interrupted run stopped."""

    def on_train_begin(self, view: TrainingView) -> None:
        self._console, self._loss = Console(), 0.0
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=None, epoch=1, epochs=view.epochs, note="")
        self._bar.start()

    def on_epoch_begin(self, view: TrainingView, epoch: int) -> None:
        done = view.position.step % view.steps_per_epoch
        self._bar.reset(self._task, total=view.steps_per_epoch, completed=done, epoch=epoch)

    def on_step_end(self, view: TrainingView, step: Step) -> None:
        self._loss = step.total
        self._bar.update(self._task, advance=1, note=f"loss {step.total:.3f}")

    def on_validation(self, view: TrainingView, validation: Validation) -> None:
        shown = "  ".join(f"{name} {value:.3f}" for name, value in list(validation.numbers.items())[:2])
        step = view.position.step
        missed = f" (val {validation.numbers['loss']:.4f})" if "loss" in validation.numbers else ""
        self._console.print(f"epoch {view.epoch:4d}  step {step:6d}  loss {self._loss:8.4f}{missed}  {shown}")

    def on_train_end(self, view: TrainingView, error: BaseException | None) -> None:
        self._bar.stop()
        if isinstance(error, KeyboardInterrupt):
            print(f"stopped after step {view.position.step}", flush=True)


def _cut(path: Path, keep: Callable[[str], bool]) -> None:
    """Drop the lines that `keep` refuses, and a last one without line end."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_atomic(path, "".join(line for line in lines if line.endswith("\n") and keep(line)))
