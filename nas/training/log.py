"""What a training leaves to look at: CSV of every step, JSON line of every validation, TensorBoard, a progress bar."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch.utils.tensorboard import SummaryWriter

from nas.files import write_atomic

STEPS, EPOCHS = "steps.csv", "epochs.jsonl"


class TrainingLog:
    """Writes into `folder` from optimiser step `step` on; later rows, left by a killed run, are cut off first.

    steps.csv and epochs.jsonl hold nothing that depends on time: a resumed run leaves the same bytes as one that was
    never interrupted. With `active` false (all processes but the first) nothing happens.
    """

    def __init__(
        self, folder: Path, step: int = 0, epochs: int = 1, active: bool = True, progress: bool = True
    ) -> None:
        self.active = active
        if not active:
            return
        folder.mkdir(parents=True, exist_ok=True)
        _cut(folder / STEPS, lambda line: not line[0].isdigit() or int(line.split(",", 1)[0]) <= step)
        _cut(folder / EPOCHS, lambda line: json.loads(line)["step"] <= step)
        self._steps = (folder / STEPS).open("a", encoding="utf-8")
        self._epochs = (folder / EPOCHS).open("a", encoding="utf-8")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        self._console = Console()
        columns = ("epoch {task.fields[epoch]}/", "{task.fields[epochs]}", "{task.fields[note]}")
        self._bar = Progress(
            TextColumn(" ".join([columns[0] + columns[1]])),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn(columns[2]),
            console=self._console,
            disable=not (progress and self._console.is_terminal),
        )
        self._task = self._bar.add_task("training", total=None, epoch=1, epochs=epochs, note="")
        self._quiet, self._total = not progress, 0.0
        self._bar.start()

    def epoch(self, number: int, position: int, length: int) -> None:
        """Begin epoch `number` (1-based) at batch `position` of `length`."""
        if self.active:
            self._bar.reset(self._task, total=length, completed=position, epoch=number)

    def step(self, step: int, epoch: int, rate: float, losses: Mapping[str, float], board: bool) -> None:
        """One optimiser step's mean losses; `board`: also to TensorBoard."""
        if not self.active:
            return
        self._total = total = sum(losses.values())
        if self._steps.tell() == 0:
            self._steps.write(",".join(["step", "epoch", "lr", *losses, "total"]) + "\n")
        self._steps.write(
            ",".join([str(step), str(epoch), repr(rate), *map(repr, losses.values()), repr(total)]) + "\n"
        )
        if board:
            for name, value in losses.items():
                self.board.add_scalar(f"loss/{name}", value, step)
            self.board.add_scalar("loss/total", total, step)
            self.board.add_scalar("schedule/lr", rate, step)
        self._bar.update(self._task, advance=1, note=f"loss {total:.3f}")

    def speed(self, step: int, images_per_second: float, memory_mb: float) -> None:
        """Throughput and peak memory, to TensorBoard alone."""
        if self.active:
            self.board.add_scalar("speed/images_per_second", images_per_second, step)
            self.board.add_scalar("speed/memory_mb", memory_mb, step)

    def validation(self, step: int, epoch: int, numbers: Mapping[str, float]) -> None:
        """Scores of the averaged weights after `step`."""
        if not self.active:
            return
        row = {"step": step, "epoch": epoch} | dict(numbers)
        self._epochs.write(json.dumps(row) + "\n")
        self.flush()
        for name, value in numbers.items():
            self.board.add_scalar(f"val/{name}", value, step)
        if not self._quiet:
            shown = "  ".join(f"{name} {value:.3f}" for name, value in list(numbers.items())[:2])
            self._console.print(f"epoch {epoch:4d}  step {step:6d}  loss {self._total:8.4f}  {shown}")

    def figures(self, step: int, images: Mapping[str, NDArray[np.uint8]], curves: Mapping[str, Any]) -> None:
        """Pictures (H, W, 3) and precision over recall (recall, precision) of each class."""
        if not self.active:
            return
        for name, image in images.items():
            self.board.add_image(name, image, step, dataformats="HWC")
        for name, (recall, precision) in curves.items():
            zeros = np.zeros_like(recall)
            self.board.add_pr_curve_raw(
                f"pr/{name}", zeros, zeros, zeros, zeros, precision, recall, step, num_thresholds=len(recall)
            )

    def say(self, text: str) -> None:
        """One line for the person who watches."""
        if self.active and not self._quiet:
            self._console.print(text)

    def flush(self) -> None:
        """Hand everything written so far to the file system."""
        if self.active:
            self._steps.flush()
            self._epochs.flush()
            self.board.flush()

    def close(self) -> None:
        """Close files and progress bar."""
        if self.active:
            self._bar.stop()
            self._steps.close()
            self._epochs.close()
            self.board.close()
            self.active = False


def _cut(path: Path, keep: Any) -> None:
    """Drop the lines that `keep` refuses, and a last one without line end."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_atomic(path, "".join(line for line in lines if line.endswith("\n") and keep(line)))


def side_by_side(
    image: NDArray[np.uint8],
    truth: tuple[NDArray, NDArray],
    found: tuple[NDArray, NDArray],
    classes: Sequence[str],
) -> NDArray[np.uint8]:
    """One image twice: annotated boxes on the left, predicted ones on the right; each (boxes (K, 4), labels (K,))."""
    import cv2

    panels = []
    for boxes, labels in (truth, found):
        panel = np.ascontiguousarray(image)
        for box, label in zip(boxes, labels, strict=True):
            shade = np.random.default_rng(int(label) + 7).integers(60, 256, 3)
            colour = (int(shade[0]), int(shade[1]), int(shade[2]))
            x1, y1, x2, y2 = (round(float(value)) for value in box)
            cv2.rectangle(panel, (x1, y1), (x2, y2), colour, 2)
            name = classes[int(label)]
            cv2.putText(panel, name, (x1 + 2, max(y1 + 12, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
        panels.append(panel)
    return np.concatenate(panels, axis=1)
