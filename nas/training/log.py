"""What a training leaves to look at, as hooks: CSV of every step, JSON line of every validation, TensorBoard, progress."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch.utils.tensorboard import SummaryWriter

from nas.files import read_text, write_atomic
from nas.training.hooks import Hook, Speed, Step, TrainingView, Validation

STEPS, EPOCHS = "steps.csv", "epochs.jsonl"


class LogFiles(Hook):
    """steps.csv and epochs.jsonl; rows after the step that a run goes on from, left by a killed one, are cut off.

    They hold nothing that depends on time: a resumed run leaves the same bytes as one that was never interrupted.
    """

    def on_train_begin(self, view: TrainingView) -> None:
        last = view.position.step
        view.folder.mkdir(parents=True, exist_ok=True)
        _cut(view.folder / STEPS, lambda line: not line[0].isdigit() or int(line.split(",", 1)[0]) <= last)
        _cut(view.folder / EPOCHS, lambda line: json.loads(line)["step"] <= last)
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
    return [json.loads(line) for line in read_text(path).splitlines()] if path.is_file() else []


class TensorBoard(Hook):
    """Events in the folder `tensorboard`: losses and rate of every `every`-th step, speed, scores, pictures, curves."""

    def __init__(self, every: int) -> None:
        self._every = every

    def on_train_begin(self, view: TrainingView) -> None:
        step = view.position.step
        self._board = SummaryWriter(str(view.folder / "tensorboard"), purge_step=step + 1 if step else None)

    def on_step_end(self, view: TrainingView, step: Step) -> None:
        if step.number % self._every and step.number != 1:
            return
        for name, value in (dict(step.losses) | {"total": step.total}).items():
            self._board.add_scalar(f"loss/{name}", value, step.number)
        self._board.add_scalar("schedule/lr", step.rate, step.number)

    def on_epoch_end(self, view: TrainingView, speed: Speed) -> None:
        self._board.add_scalar("speed/images_per_second", speed.images_per_second, view.position.step)
        self._board.add_scalar("speed/memory_mb", speed.memory_mb, view.position.step)

    def on_validation(self, view: TrainingView, validation: Validation) -> None:
        step = view.position.step
        for name, value in validation.numbers.items():
            self._board.add_scalar(f"val/{name}", value, step)
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


class Screen(Hook):
    """A progress bar on a terminal, a line for every validation, and how an interrupted run goes on."""

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
        self._console.print(f"epoch {view.epoch:4d}  step {step:6d}  loss {self._loss:8.4f}  {shown}")

    def on_train_end(self, view: TrainingView, error: BaseException | None) -> None:
        self._bar.stop()
        if isinstance(error, KeyboardInterrupt):
            print(f"stopped after step {view.position.step}; go on with resume={view.folder}", flush=True)


def _cut(path: Path, keep: Callable[[str], bool]) -> None:
    """Drop the lines that `keep` refuses, and a last one without line end."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_atomic(path, "".join(line for line in lines if line.endswith("\n") and keep(line)))
