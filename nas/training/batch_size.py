"""trainer.batch_size=auto: the largest batch that memory holds, from the memory of a few steps of two small ones."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace

import torch

from nas.errors import UserError
from nas.memory import free_memory, peak_memory, start_peak
from nas.training.run import run_training
from nas.training.setup import device_place
from nas.training.task import TrainingTask

#: Images of the two batches that are tried, their steps, the share of the free memory that is used, and the most images: those
#: of the official recipe.
TRIED, STEPS, SHARE, MOST = (4, 12), 2, 0.8, 256

Measure = Callable[[int], float]


def fitting_batch(task: TrainingTask, say: Callable[[str], None] = print) -> int:
    """Images of one optimiser step for `task`, a power of two for each of its micro-batches; a few steps are trained.

    Raises UserError under torchrun, where the system does not tell its memory, and where not even one image fits.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("trainer.batch_size=auto is for one process: under torchrun give the number")
    place = device_place(task.device)
    free = free_memory(place)
    if free is None:
        raise UserError("trainer.batch_size=auto: this system does not tell its memory; give the number")
    on_gpu = place.startswith("cuda")
    measured = (lambda images: _on_gpu(task, images, place)) if on_gpu else (lambda images: _on_cpu(task, images))
    images, base, each = largest(measured, free, len(task.train))
    micro = task.options.accumulate
    say(
        f"trainer.batch_size=auto: {images * micro} ({each:.0f} MB an image and {base:.0f} MB beside; {free:.0f} MB free"
        f"{f'; {micro} micro-batches' if micro > 1 else ''})"
    )
    return images * micro


def largest(measured: Measure, free: float, images: int) -> tuple[int, float, float]:
    """The most images, a power of two, that SHARE of `free` megabytes holds; megabytes beside images, and of each.

    measured: megabytes of a batch of so many images; images: how many there are. UserError if not even one fits.
    """
    small, large = TRIED
    few, many = measured(small), measured(large)
    each = max((many - few) / (large - small), many / large / 10)  # what noise hides is no less than that
    base = max(few - small * each, 0.0)
    fitting = int((SHARE * free - base) / each)
    if fitting < 1:
        raise UserError(f"out of memory: not one image of this size fits into {free:.0f} MB; lower image_size")
    return 1 << (min(fitting, images, MOST).bit_length() - 1), base, each


def _on_cpu(task: TrainingTask, images: int) -> float:
    before = start_peak()
    _steps(task, images)
    peak = peak_memory()
    if before is None or peak is None:
        raise UserError("trainer.batch_size=auto: this system does not tell a process's memory; give the number")
    return peak - before


def _on_gpu(task: TrainingTask, images: int, place: str) -> float:
    device = torch.device(place)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    _steps(task, images)
    taken = (torch.cuda.max_memory_reserved(device) - before) / 1e6
    torch.cuda.empty_cache()
    return taken


def _steps(task: TrainingTask, images: int) -> None:
    """A few steps of a batch of so many images, of the task's own first ones, thrown away."""
    options = replace(
        task.options, epochs=1, minutes=None, batch_size=images, accumulate=1, workers=0, cache="none", compile=False,
        save_steps=0, repeat_threshold=0.0, best="ap",  # any other figure asks for validations
    )  # fmt: skip
    count = len(task.train)
    train = task.train.subset(number % count for number in range(images * STEPS))
    model = copy.deepcopy(task.model)  # a module would be trained as it is
    short = replace(task, model=model, train=train, val=None, options=options, loggers=())
    with tempfile.TemporaryDirectory() as folder:
        run_training(short, folder, progress=False)
