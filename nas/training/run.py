"""One call that trains a detector on annotated images: everything before, around and after the loop."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric

from nas.augment.pipeline import Augmentation
from nas.data.dataset import DetectionData, relabel
from nas.data.loader import build_loader
from nas.errors import UserError
from nas.files import claimed
from nas.inference.execution import told_when_full
from nas.loss.detection import DetectionLoss
from nas.loss.distill import Distiller
from nas.loss.distributed import share_batch_norm
from nas.memory import kept_memory
from nas.models.base import DetectorModule
from nas.models.passport import Passport
from nas.options import Resize, check_object
from nas.report.canvas import ACCENT, PALE, Shown, canvas, label
from nas.spec import DetectorSpec, digest
from nas.training.averaging import Ema, NormStatistics, Validator
from nas.training.cores import computing_threads
from nas.training.hooks import Hook, LogFiles, Screen, read_epochs
from nas.training.loggers import make_loggers
from nas.training.optimizer import Schedule, make_optimizer
from nas.training.options import DistillOptions, Phases, TrainerOptions
from nas.training.setup import (
    Source,
    TrainingNetwork,
    load_teacher,
    make_fabric,
    neck_channels,
    prepare_detector,
    start_from,
)
from nas.training.state import Position, TrainingParts, read_state, resumable
from nas.training.trainer import Trainer, Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TrainingResult(Shown):
    """Where a training left its files, and its best validation AP (-1 if it never validated).

    The picture has the validation AP by epoch.
    """

    folder: Path
    best: Path
    last: Path
    score: float
    epoch: int
    steps: int
    seconds: float

    def __repr__(self) -> str:
        told = f"val AP {self.score:.3f} (epoch {self.epoch})" if self.score >= 0 else "never validated"
        return f"TrainingResult({told}, {self.steps} steps, {self.seconds / 60:.1f} min, {self.best})"

    def to_dict(self) -> dict[str, object]:
        files = {name: str(getattr(self, name)) for name in ("folder", "best", "last")}
        return asdict(self) | files | {"validations": read_epochs(self.folder)}

    def plot(self) -> Figure:
        rows = read_epochs(self.folder)
        figure, ((axes,),) = canvas(1, 1, 6, 3.2)
        for name, colour in (("ap50", PALE), ("ap", ACCENT)):
            axes.plot([row["epoch"] for row in rows], [row[name] for row in rows], "o-", ms=3, color=colour, label=name)
        label(axes, str(self.folder), "epoch", "validation AP")
        axes.legend(fontsize=8, frameon=False)
        return figure


@dataclass
class TrainingTask:
    """What to train on what; `model` as in `prepare_detector`, val None trains without validation.

    weights: a checkpoint of another network, whose entries that fit are the start. one_to_one: whether ZeroHead is
    deployed without NMS, None: as the model says. loggers: names of nas.training.loggers; they change no result.
    table: digest of the latency table that the network was found by, for the passport. resize: None, as the model says.
    """

    model: Source
    train: DetectionData
    val: DetectionData | None = None
    options: TrainerOptions = field(default_factory=TrainerOptions)
    augmentation: Augmentation = field(default_factory=Augmentation)
    distill: DistillOptions = field(default_factory=DistillOptions)
    image_size: int | None = None
    seed: int = 0
    device: str = "auto"
    weights: str | None = None
    one_to_one: bool | None = None
    loggers: Sequence[str] = ("tensorboard",)
    table: str | None = None
    resize: Resize | None = None


@told_when_full(
    "trainer.batch_size or image_size, raise trainer.accumulate, or set trainer.cache=none and fewer trainer.workers "
    "(what was saved last is intact: resume goes on from it)"
)
def run_training(
    task: TrainingTask,
    folder: str | Path,
    resume: bool = False,
    progress: bool = True,
    hooks: Sequence[Hook] = (),
    until: int | None = None,
) -> TrainingResult:
    """Train `task`, leaving in `folder` last and best checkpoints, the full state, logs and TensorBoard events.

    resume: go on from the folder's last state; the run then equals one that was never interrupted, bit by bit on one
    machine. hooks watch, after those that write the logs, and change no result (nas.training.hooks). until: epochs after
    which it pauses, validated and saved, on the schedule of the whole; resume goes on from there. Under torchrun every
    process calls this, and the first one's folder holds for all. Raises UserError for anything unusable;
    KeyboardInterrupt after a signal, with the state saved.
    """
    if not 0 <= task.seed < 2**32:
        raise UserError(f"seed must be from 0 to {2**32 - 1}, got {task.seed}")
    options = task.options.checked()
    check_object(task.distill, "distill")
    fabric = make_fabric(task.device, options.precision, options.sync_batch_norm)
    if options.channels_last is None:
        precise = fabric.device.type == "cpu" and fabric.strategy.precision.precision in ("32-true", "64-true")
        options = replace(options, channels_last=not precise)
    folder = Path(fabric.broadcast(str(folder)))
    with ExitStack() as stack:
        threads = stack.enter_context(computing_threads(options.threads, int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
        if fabric.device.type == "cuda":
            cudnn = torch.backends.cudnn
            stack.enter_context(
                cudnn.flags(benchmark=True, deterministic=cudnn.deterministic, allow_tf32=cudnn.allow_tf32)
            )
        elif progress and fabric.is_global_zero:
            print(threads, flush=True)
        if fabric.is_global_zero and (folder.is_dir() or not resume):
            stack.enter_context(claimed(folder))
        stack.enter_context(kept_memory())
        return _train(task, options, fabric, folder, resume, progress, hooks, until)


def _train(
    task: TrainingTask,
    options: TrainerOptions,
    fabric: Fabric,
    folder: Path,
    resume: bool,
    progress: bool,
    hooks: Sequence[Hook],
    until: int | None,
) -> TrainingResult:
    """Everything of `run_training` that computes."""
    loggers = make_loggers(task.loggers, options.log_steps)
    state = read_state(folder) if resume else None
    if state is None and resumable(folder):
        raise UserError(f"{folder} already holds a training: resume it, or choose another folder")
    phases = Phases.of(options, task.augmentation)
    torch.manual_seed(task.seed)
    source = folder / "last.safetensors" if resume else task.model
    head = None if resume else task.one_to_one
    detector = prepare_detector(source, task.train.classes, task.image_size, head, task.resize)
    if task.weights is not None and not resume:
        start_from(detector, task.weights)
    val = relabel(task.val, task.train.classes) if task.val is not None else None
    teacher = load_teacher(task.distill.teacher, detector) if task.distill.teacher else None
    if progress and fabric.is_global_zero and not resume:
        for name, model in (("weights", detector), ("teacher", teacher)):
            if (origin := getattr(model, "origin", None)) is not None:
                print(f"{name}: {origin}", flush=True)
    network = _network(task, detector, teacher)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    network.to(device=fabric.device, memory_format=layout)  # type: ignore[call-overload]
    if teacher is not None:
        teacher.to(device=fabric.device, memory_format=layout)  # type: ignore[call-overload]
    ema = Ema(copy.deepcopy(network.detector), options.ema.decay, options.ema.ramp)
    network = fabric.strategy.precision.convert_module(network)  # type: ignore[assignment]
    if fabric.world_size > 1 and options.sync_batch_norm:
        network = share_batch_norm(network, fabric.device.type)  # type: ignore[assignment]
    optimizer = make_optimizer(network.children(), options.optimizer)
    loader = build_loader(
        task.train,
        options.local_batch(fabric.world_size),
        detector.image_size,
        task.seed,
        options.workers,
        train=True,
        augmentation=task.augmentation,
        cache=options.cache,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        total_epochs=options.epochs,
        pin_memory=fabric.device.type == "cuda",
        closing_epochs=phases.closing,
        endless=options.minutes is None,  # the clock changes the plan of every epoch
        resize=detector.resize,
    )
    schedule = _schedule(task, phases, -(-len(loader) // options.accumulate))
    parts = TrainingParts(network, ema, optimizer, loader, fabric.strategy.precision, Position())
    fingerprint = _fingerprint(task, detector)
    if state is not None:
        parts.load(state, fingerprint)
    forward = fabric.setup_module(torch.compile(network) if options.compile else network)  # type: ignore[arg-type]
    loss_options = copy.copy(options.loss)
    loss_options.end_to_end = loss_options.end_to_end or getattr(detector, "auxiliary", "") == "one_to_many"
    validator = None
    if val is not None:
        size, batch = detector.image_size, options.local_batch(fabric.world_size)
        count = options.ema.norm_images
        wanted = count and fabric.is_global_zero
        statistics = NormStatistics(task.train, size, batch, count, detector.resize) if wanted else None
        validator = Validator(val, size, batch, fabric, statistics, resize=detector.resize)
    training = Training(
        fabric,
        parts,
        forward,
        DetectionLoss(loss_options, detector.image_size, options.accumulate),
        schedule,
        options,
        task.distill,
        teacher,
        validator,
        folder,
        fingerprint,
        until,
        _passport(fingerprint, task.table, detector.passport, resume),
    )
    if phases.shortened and progress and fabric.is_global_zero:
        print(f"{options.epochs} epochs are too few for the recipe's phases: {phases}", flush=True)
    watching = [LogFiles(), *loggers, *([Screen()] if progress else []), *hooks]
    Trainer(training, watching).fit()
    position = parts.position
    best, last = folder / "best.safetensors", folder / "last.safetensors"
    if val is None:
        best = last
    return TrainingResult(
        folder, best, last, position.best, position.best_epoch, position.step, round(position.seconds, 1)
    )


def _network(task: TrainingTask, detector: DetectorModule, teacher: DetectorModule | None) -> TrainingNetwork:
    distiller = None
    if teacher is not None:
        widths = neck_channels(detector), neck_channels(teacher)
        distiller = Distiller(*widths, task.distill.kind, task.distill.weight, task.distill.tau)
    return TrainingNetwork(detector, distiller, task.options.freeze)


def _schedule(task: TrainingTask, phases: Phases, steps_per_epoch: int) -> Schedule:
    options = task.options
    return Schedule(
        options.optimizer.peak_rate(options.step_images),
        options.epochs * steps_per_epoch,
        phases.warmup * steps_per_epoch,
        phases.tail * steps_per_epoch,
        options.optimizer.momentum,
        options.schedule,
    )


def _fingerprint(task: TrainingTask, detector: DetectorModule) -> dict[str, Any]:
    options = task.options
    return {
        "seed": task.seed,
        "image_size": detector.image_size,
        "classes": list(task.train.classes),
        "training data": task.train.digest(),
        "validation data": task.val.digest() if task.val is not None else None,
        "batch_size": options.batch_size,
        "accumulate": options.accumulate,
        "epochs": options.epochs,
        "minutes": options.minutes,
        "weights": task.weights,
        "head": task.one_to_one,
        "resize": None if detector.resize == "stretch" else detector.resize,  # states of old know of none
        "teacher": task.distill.teacher,
        "recipe": _recipe(task),
    }


def _passport(fingerprint: dict[str, Any], table: str | None, known: Passport | None, resume: bool) -> dict[str, str]:
    """What the passport of the checkpoints says of the training; known: that of the file that it goes on or starts from."""
    told = {name: fingerprint[name] for name in ("training data", "validation data", "recipe", "seed")}
    began = {"latency table": table, "start weights": known and known.digests.get("weights")}
    if resume and known is not None:
        began = {name: known.training.get(name) for name in began}
    return {name: str(value) for name, value in (told | began).items() if value is not None}


def _recipe(task: TrainingTask) -> str:
    """Digest of everything else that decides the result: losses, optimiser, augmentation, the network's description."""
    network = digest(task.model) if isinstance(task.model, DetectorSpec) else ""
    facts = [task.options.decisive(), task.augmentation.decisive(), asdict(task.distill), network]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
