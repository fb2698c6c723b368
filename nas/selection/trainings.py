"""The trainings of a selection, and what their results are worth deployed.

Every finalist and seed trains in a folder of its own, going on exactly where its last rung ended. AP and milliseconds are those
of one exported file, network beside network.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from filelock import FileLock

from nas.cost.latency import LatencyTable
from nas.data.dataset import DetectionData
from nas.data.rare import repeat_factors
from nas.deploy import ExportSettings, load_runtime
from nas.deploy.export import export_model
from nas.errors import UserError
from nas.inference.evaluator import evaluate
from nas.measure.artefact import Interval, time_in_turns
from nas.models.checkpoint import load_checkpoint
from nas.selection.portfolio import Finalist
from nas.training.hooks import read_epochs
from nas.training.run import run_training
from nas.training.setup import prepare_detector, start_from
from nas.training.state import read_state, resumable
from nas.training.task import TrainingTask

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
            if not resume or not _validated(place, epochs):
                run_training(task, place, resume=resume, progress=False, until=epochs)
            curve = self.curve(finalist, seed)
        if epochs not in curve:
            raise UserError(f"{place}: the training ended without a validation at epoch {epochs}; delete the folder")
        return curve[epochs], max(ap for epoch, ap in curve.items() if epoch <= epochs)

    def kept(self, finalist: Finalist) -> tuple[int, int]:
        """How many entries of the task's weights fit the network, which its trainings start with, and how many it has.

        UserError if nothing fits.
        """
        task = self.task
        assert task.weights is not None
        with torch.random.fork_rng([]):
            detector = prepare_detector(
                finalist.spec, task.train.classes, task.image_size, task.one_to_one, task.resize
            )
        start_from(detector, task.weights)
        origin = detector.origin
        return origin.total - len(origin.fresh), origin.total

    def place(self, finalist: Finalist, seed: int) -> Path:
        """The folder of a training."""
        return self.folder / f"{finalist.name}-{finalist.digest[:8]}-seed{seed}"

    def curve(self, finalist: Finalist, seed: int) -> dict[int, float]:
        """Validation AP by epoch, as far as the training has come."""
        rows = read_epochs(self.place(finalist, seed))
        return {int(row["epoch"]): float(row["ap"]) for row in rows}


def _validated(place: Path, epochs: int) -> bool:
    """Whether a training was validated after so many epochs and saved with it: a row of its log may be older than a fault
    that came before the checkpoints were written."""
    steps = [row["step"] for row in read_epochs(place) if row["epoch"] == epochs]
    return bool(steps) and steps[-1] <= read_state(place)["position"]["validated"]


def epoch_seconds(task: TrainingTask, finalists: Sequence[Finalist]) -> float:
    """Seconds that an epoch of one finalist takes here, its share of validations included; a few batches are trained."""
    from nas.inference.evaluator import evaluate
    from nas.models.checkpoint import load_checkpoint

    options = task.options
    count = min(len(task.train), TIMED_BATCHES * options.step_images)
    val = task.val
    assert val is not None
    looked = val.subset(range(min(len(val), 2 * options.step_images)))
    draws = repeat_factors(task.train, options.repeat_threshold).sum()
    total = 0.0
    chosen = finalists[:: max(1, len(finalists) // TIMED_NETWORKS)][:TIMED_NETWORKS]
    for finalist in chosen:
        short = replace(options, epochs=1, minutes=None, repeat_threshold=0.0)
        timed = replace(task, model=finalist.spec, train=task.train.subset(range(count)), val=None, options=short)
        with tempfile.TemporaryDirectory() as folder:
            result = run_training(timed, folder, progress=False)
            model = load_checkpoint(result.last)
        began = time.perf_counter()
        evaluate(model.fuse(), looked, model.image_size, batch_size=options.step_images)
        validation = (time.perf_counter() - began) * len(val) / len(looked)
        total += result.seconds * draws / count + validation / options.evaluate_every
    return total / len(chosen)


#: Runtimes of latency tables that are timed here, with the format of their files; others need their own machine.
TIMED = {"onnxruntime": "onnx", "openvino": "openvino"}


@dataclass(frozen=True, slots=True)
class Deployed:
    """An exported finalist: AP of that very file on the test split (the validation split where there is none), its
    milliseconds here (None: the table's device is another), and the quartiles of the turns."""

    finalist: Finalist
    seed: int
    file: Path
    split: str
    ap: float
    ap50: float
    ms: float | None
    spread: tuple[float, float] | None


def deploy(
    chosen: Sequence[tuple[Finalist, int, Path]], folder: Path, table: LatencyTable, data: DetectionData
) -> list[Deployed]:
    """Export the checkpoints of (finalist, seed, checkpoint), then score and time the files in one session."""
    runtime = next((name for name in TIMED if table.header.runtime.lower().replace(" ", "").startswith(name)), "")
    threads = int(table.header.provenance.get("threads", 1))
    settings = ExportSettings(format=TIMED.get(runtime, "onnx"), images=str(data.records[0].path.parent))
    files = []
    for finalist, seed, checkpoint in chosen:
        model = load_checkpoint(checkpoint)
        files.append(export_model(model, folder / f"{finalist.name}-seed{seed}.onnx", settings).path)
    timed = [load_runtime(file, threads=threads) for file in files] if runtime else []
    times = time_in_turns(timed) if runtime else [[] for _ in files]
    found = []
    for (finalist, seed, _), file, own in zip(chosen, files, times, strict=True):
        network = load_runtime(file)
        scores = evaluate(network, data, network.image_size)
        interval = Interval.of(own) if own else None
        ms, spread = (interval.median, (interval.low, interval.high)) if interval else (None, None)
        found.append(Deployed(finalist, seed, file, data.split, float(scores.ap), float(scores.ap50), ms, spread))
    return found
