"""The trainings of a selection: every finalist and seed in a folder of its own, going on exactly where its last rung ended."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from nas.errors import UserError
from nas.selection.portfolio import Finalist
from nas.training.log import read_epochs
from nas.training.run import TrainingTask, run_training
from nas.training.state import resumable

#: Batches whose training tells how long an epoch takes, and networks that are timed.
TIMED_BATCHES, TIMED_NETWORKS = 6, 3


class Trainings:
    """Trains finalists as `task` says, whose epochs are those of a whole training; called by a rung with its epoch."""

    def __init__(self, task: TrainingTask, folder: Path) -> None:
        self.task, self.folder = task, folder

    def __call__(self, finalist: Finalist, seed: int, epochs: int) -> tuple[float, float]:
        """Train up to an epoch; returns the validation AP there and the best so far. KeyboardInterrupt after a signal."""
        place = self.place(finalist, seed)
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / ".lock"):  # a worker that lost its lease may still be writing its last state
            resume = resumable(place)
            task = replace(self.task, model=finalist.spec, seed=seed)
            if not resume or self.curve(finalist, seed).get(epochs) is None:
                run_training(task, place, resume=resume, progress=False, until=epochs)
            curve = self.curve(finalist, seed)
        if epochs not in curve:
            raise UserError(f"{place}: the training ended without a validation at epoch {epochs}; delete the folder")
        return curve[epochs], max(ap for epoch, ap in curve.items() if epoch <= epochs)

    def place(self, finalist: Finalist, seed: int) -> Path:
        """The folder of a training."""
        return self.folder / f"{finalist.name}-{finalist.digest[:8]}-seed{seed}"

    def curve(self, finalist: Finalist, seed: int) -> dict[int, float]:
        """Validation AP by epoch, as far as the training has come."""
        rows = read_epochs(self.place(finalist, seed))
        return {int(row["epoch"]): float(row["ap"]) for row in rows}


def epoch_seconds(task: TrainingTask, finalists: Sequence[Finalist]) -> float:
    """Seconds that an epoch of one finalist takes here, its share of validations included; a few batches are trained."""
    from nas.inference.evaluator import evaluate
    from nas.models.checkpoint import load_checkpoint

    options = task.options
    count = min(len(task.train), TIMED_BATCHES * options.batch_size)
    val = task.val
    assert val is not None
    looked = val.subset(range(min(len(val), 2 * options.batch_size)))
    total = 0.0
    chosen = finalists[:: max(1, len(finalists) // TIMED_NETWORKS)][:TIMED_NETWORKS]
    for finalist in chosen:
        short = replace(options, epochs=1, minutes=None)
        timed = replace(task, model=finalist.spec, train=task.train.subset(range(count)), val=None, options=short)
        with tempfile.TemporaryDirectory() as folder:
            result = run_training(timed, folder, progress=False)
            model = load_checkpoint(result.last)
        began = time.perf_counter()
        evaluate(model.fuse(), looked, model.image_size, batch_size=options.batch_size)
        validation = (time.perf_counter() - began) * len(val) / len(looked)
        total += result.seconds * len(task.train) / count + validation / options.evaluate_every
    return total / len(chosen)
