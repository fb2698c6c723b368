"""Share of a training step that is not the network's forward and backward.

    python experiments/train_step/measure.py [MODEL] [BATCH] [SIZE] [STEPS] [PRECISION]

Times the real trainer on drawn pictures (images already in memory) and prints seconds a step by part. CPU seconds of the
process are measured, so that other work on the machine does not count.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nas.augment.pipeline import Augmentation
from nas.data.coco import read_coco
from nas.data.shapes import draw_shapes
from nas.training.options import ScheduleOptions, TrainerOptions
from nas.training.run import run_training
from nas.training.task import TrainingTask
from nas.training.trainer import Trainer, Training


def timed(parts: dict[str, float], name: str, call: Any) -> Any:
    """`call` with its CPU seconds added up under `name`."""

    def wrapper(*arguments: Any, **options: Any) -> Any:
        started = time.process_time()
        result = call(*arguments, **options)
        parts[name] = parts.get(name, 0.0) + time.process_time() - started
        return result

    return wrapper


def main(model: str = "damo-yolo-t", batch: int = 8, size: int = 320, steps: int = 8, precision: str = "fp32") -> None:
    """Print the seconds of each part and the share outside the network."""
    parts: dict[str, float] = {}
    network: dict[str, float] = {}
    original = Trainer.__init__

    def prepared(self: Trainer, training: Training, *rest: Any) -> None:
        forward = training.forward
        timed_training = replace(
            training,
            loss=timed(parts, "assignment and losses", training.loss),
            forward=timed(network, "forward", lambda *inputs: forward(*inputs)),
        )
        original(self, timed_training, *rest)
        self.parts.ema.update = timed(parts, "average", self.parts.ema.update)  # type: ignore[method-assign]
        precise = self.parts.precision
        precise.optimizer_step = timed(parts, "optimiser", precise.optimizer_step)  # type: ignore[method-assign]
        self.fabric.backward = timed(network, "backward", self.fabric.backward)  # type: ignore[method-assign]
        self.fabric.no_backward_sync = lambda *_, **__: torch.autograd.profiler.record_function("step")  # type: ignore
        self._step = timed(parts, "step", self._step)  # type: ignore[method-assign]

    Trainer.__init__ = prepared  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        root = draw_shapes(Path(folder) / "shapes", counts={"train": batch * steps}, size=size)
        data, _ = read_coco(root / "annotations/train.json", root / "images/train", "shapes", "train")
        options = TrainerOptions(epochs=1, batch_size=batch, workers=0, cache="ram", precision=precision)
        options.schedule = ScheduleOptions(warmup_epochs=0, tail_epochs=0)
        task = TrainingTask(model, data, None, options, Augmentation.plain(), image_size=size, device="cpu")
        run_training(task, Path(folder) / "run", progress=False)
    whole, inside = parts.pop("step"), sum(network.values())
    for name, seconds in (network | parts).items():
        print(f"{name:24s}{1000 * seconds / steps:9.1f} ms")
    print(f"{'step':24s}{1000 * whole / steps:9.1f} ms, outside the network {100 * (whole - inside) / whole:.1f} %")


if __name__ == "__main__":
    given = sys.argv[1:]
    kinds = (str, int, int, int, str)
    print(__doc__) if {"-h", "--help"} & set(given) else main(
        *(kind(text) for kind, text in zip(kinds, given, strict=False))
    )
