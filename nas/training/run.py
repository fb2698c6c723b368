"""One call that trains a detector on annotated images: everything before, around and after the loop."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lightning_fabric import Fabric
from torch import Tensor

from nas.data.dataset import DetectionData, relabel
from nas.data.loader import Loader, build_loader
from nas.data.rare import class_weights as balancing_weights
from nas.data.rare import repeat_factors
from nas.errors import UserError
from nas.files import claimed
from nas.inference.execution import told_when_full
from nas.loss import LossOptions
from nas.loss.detection import DetectionLoss
from nas.loss.distill import Distiller
from nas.loss.distributed import share_batch_norm
from nas.loss.validation import ValidationLoss
from nas.memory import kept_memory
from nas.models.base import DetectorModule
from nas.options import check_object
from nas.report.canvas import ACCENT, PALE, Shown, canvas, label
from nas.training.averaging import Ema, NormStatistics, Validator
from nas.training.best import check_best, figure, title
from nas.training.cores import computing_threads
from nas.training.hooks import Hook, LogFiles, Screen, read_epochs
from nas.training.loggers import make_loggers
from nas.training.optimizer import Schedule, make_optimizer
from nas.training.options import Phases, TrainerOptions
from nas.training.setup import (
    TrainingNetwork,
    load_teacher,
    make_fabric,
    neck_channels,
    prepare_detector,
    start_from,
)
from nas.training.state import Position, TrainingParts, read_state, resumable
from nas.training.task import TrainingTask, as_saved, fingerprint_of, passport_facts
from nas.training.trainer import Trainer, Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TrainingResult(Shown):
    """Where a training left its files, and its best validation AP, or what `trainer.best` names (-1: it never validated).

    The picture has the validation AP by epoch.
    """

    folder: Path
    best: Path
    last: Path
    score: float
    epoch: int
    steps: int
    seconds: float
    metric: str = "ap"

    def __repr__(self) -> str:
        told = (
            f"val {title(self.metric)} {self.score:.3f} (epoch {self.epoch})" if self.score >= 0 else "never validated"
        )
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
    machine. With more epochs than that state's it goes on to these, on their schedule from where it stands. hooks
    watch, after those that write the logs, and change no result (nas.training.hooks). until: epochs after
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

    def say(line: str) -> None:
        if progress and fabric.is_global_zero:
            print(line, flush=True)

    loggers = make_loggers(task.loggers, options.log_steps)
    state = read_state(folder) if resume else None
    if state is None and resumable(folder):
        raise UserError(f"{folder} already holds a training: resume it, or choose another folder")
    phases = Phases.of(options, task.augmentation)
    torch.manual_seed(task.seed)
    detector = _detector(task, folder, resume)
    val = relabel(task.val, task.train.classes) if task.val is not None else None
    check_best(options, val)
    teacher = load_teacher(task.distill.teacher, detector) if task.distill.teacher else None
    for name, model in (("weights", detector), ("teacher", teacher)):
        if not resume and (origin := getattr(model, "origin", None)) is not None:
            say(f"{name}: {origin}")
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
    loader = _loader(task, options, fabric, phases, detector, say)
    schedule = _schedule(task, phases, -(-len(loader) // options.accumulate))
    parts = TrainingParts(network, ema, optimizer, loader, fabric.strategy.precision, Position())
    fingerprint = fingerprint_of(task, detector)
    if state is not None:
        saved = as_saved(task, state)
        parts.load(state, fingerprint_of(saved, detector))
        if saved is not task:
            _go_further(parts, options, phases)
            say(f"from epoch {loader.sampler.epoch} on to {options.epochs} instead of {saved.options.epochs}")
    forward = fabric.setup_module(torch.compile(network) if options.compile else network)  # type: ignore[arg-type]
    loss_options = copy.copy(options.loss)
    loss_options.end_to_end = loss_options.end_to_end or getattr(detector, "auxiliary", "") == "one_to_many"
    class_weights = None
    if options.loss.class_balance:
        class_weights = torch.from_numpy(balancing_weights(task.train.histogram(), options.loss.class_balance))
    training = Training(
        fabric,
        parts,
        forward,
        DetectionLoss(loss_options, detector.image_size, options.accumulate, class_weights=class_weights),
        schedule,
        options,
        task.distill,
        teacher,
        None if val is None else _validator(val, task, options, fabric, detector, loss_options, class_weights),
        folder,
        fingerprint,
        until,
        passport_facts(fingerprint, task.table, detector.passport, resume),
    )
    if phases.shortened:
        say(f"{options.epochs} epochs are too few for the recipe's phases: {phases}")
    watching = [LogFiles(), *loggers, *([Screen()] if progress else []), *hooks]
    Trainer(training, watching).fit()
    position = parts.position
    best, last = folder / "best.safetensors", folder / "last.safetensors"
    if val is None:
        best = last
    score = figure(position.best, options.best) if position.best_epoch else -1.0
    seconds = round(position.seconds, 1)
    return TrainingResult(folder, best, last, score, position.best_epoch, position.step, seconds, options.best)


def _detector(task: TrainingTask, folder: Path, resume: bool) -> DetectorModule:
    """The detector at the start of this sitting: the task's with what fits of its `weights`, or the folder's last one."""
    if resume:
        return prepare_detector(folder / "last.safetensors", task.train.classes, task.image_size, None, task.resize)
    detector = prepare_detector(task.model, task.train.classes, task.image_size, task.one_to_one, task.resize)
    if task.weights is not None:
        start_from(detector, task.weights)
    return detector


def _loader(
    task: TrainingTask,
    options: TrainerOptions,
    fabric: Fabric,
    phases: Phases,
    detector: DetectorModule,
    say: Callable[[str], None],
) -> Loader:
    """This process's share of the training images; what is repeated for rare classes is told."""
    factors = repeat_factors(task.train, options.repeat_threshold) if options.repeat_threshold else None
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
        factors=factors,
    )
    if factors is not None:
        repeated, draws = (factors > 1).sum(), loader.sampler.order.draws
        say(f"rare classes: {repeated} of {len(factors)} images are repeated, {draws} draws an epoch")
    return loader


def _validator(
    val: DetectionData,
    task: TrainingTask,
    options: TrainerOptions,
    fabric: Fabric,
    detector: DetectorModule,
    loss_options: LossOptions,
    class_weights: Tensor | None,
) -> Validator:
    """What validates on `val`, whose classes are in the order of training; UserError where its loss is wanted and unknown."""
    size, batch, count = detector.image_size, options.local_batch(fabric.world_size), options.ema.norm_images
    wanted = count and fabric.is_global_zero
    statistics = NormStatistics(task.train, size, batch, count, detector.resize) if wanted else None
    loss = None
    if options.validation_loss and isinstance(detector, DetectorModule):  # a module of somebody else may lack the form
        loss = functools.partial(ValidationLoss, loss_options, size, options.step_images, class_weights)
    elif options.best == "loss":
        raise UserError("trainer.best=loss: the loss of this module cannot be validated, it is no DetectorModule")
    return Validator(val, size, batch, fabric, statistics, resize=detector.resize, loss=loss)


def _go_further(parts: TrainingParts, options: TrainerOptions, phases: Phases) -> None:
    """Set the plan of the epochs for their new number, and let a patience that was used up begin anew."""
    sampler = parts.loader.sampler
    sampler.total_epochs, sampler.closing_epochs = options.epochs, phases.closing
    parts.position.stale = 0


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
