"""The training loop: one explicit loop over epochs and batches for CPU, GPU and several processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from nas.data.loader import Batch
from nas.loss.assignment import pad_targets
from nas.loss.detection import DetectionLoss
from nas.loss.distill import check_not_zero, distill_weight
from nas.loss.distributed import world_size
from nas.memory import peak_memory
from nas.models.base import DetectorModule
from nas.models.checkpoint import save_checkpoint
from nas.training.best import worth
from nas.training.guards import Interrupt, LossGuard
from nas.training.hooks import Hook, Speed, Step, TrainingView, Validation
from nas.training.optimizer import Schedule, fraction_done, set_rates
from nas.training.options import DistillOptions, TrainerOptions
from nas.training.state import TrainingParts, write_state


@dataclass(frozen=True)
class Training:
    """A prepared training, all that `Trainer` runs.

    parts: what is trained and saved; forward: the network as Fabric wraps it; validate: scores the averaged
    weights, in the first process; fingerprint: what a resumed run must share; teacher: its `features` are distilled.
    until: epochs after which the training pauses, validated and saved, to be resumed later; None: it runs to its end.
    passport: what the passport of its checkpoints says of it.
    """

    fabric: Fabric
    parts: TrainingParts
    forward: Any
    loss: DetectionLoss
    schedule: Schedule
    options: TrainerOptions
    distill: DistillOptions
    teacher: DetectorModule | None
    validate: Callable[[DetectorModule], Validation] | None
    folder: Path
    fingerprint: Mapping[str, Any]
    until: int | None = None
    passport: Mapping[str, str] = field(default_factory=dict)


class Trainer:
    """Runs a prepared training to its end, which hooks watch; `fit` is the loop."""

    def __init__(self, training: Training, hooks: Sequence[Hook] = ()) -> None:
        self.training, self.fabric, self.parts = training, training.fabric, training.parts
        self.options, self.schedule, self.teacher = training.options, training.schedule, training.teacher
        self.loader, self.position = training.parts.loader, training.parts.position
        self.hooks = tuple(hooks) if self.fabric.is_global_zero else ()
        self.view = TrainingView(training.folder, self.options.epochs, self.steps_per_epoch, training.parts)
        self.total_steps = round(self.schedule.total)
        self.seed = int(training.fingerprint.get("seed", 0))
        self.memory_format = torch.channels_last if self.options.channels_last else torch.contiguous_format
        self.clip = self.options.clip if self.options.clip is not None else (30.0 if self.teacher is not None else 0.0)
        self.guard = LossGuard(self._tell_step)
        self._epoch = 1
        self._reserve = 0.0
        self._clock = self._saved = time.perf_counter()

    @property
    def fraction(self) -> float:
        """Share of the training that is done."""
        seconds = self.position.seconds + self._reserve
        return fraction_done(self.position.step, self.total_steps, seconds, self.options.minutes)

    @property
    def finished(self) -> bool:
        """Whether the steps, the time or the patience are used up."""
        patience = self.options.patience
        return self.fraction >= 1 or bool(patience and self.position.stale >= patience)

    @property
    def paused(self) -> bool:
        """Whether the epochs that were asked for this time are over."""
        until, sampler = self.training.until, self.loader.sampler
        return until is not None and sampler.epoch >= until and sampler.position == 0

    @property
    def in_tail(self) -> bool:
        """Whether the closing phase at the constant, final rate has begun."""
        return self.fraction * self.total_steps >= self.schedule.total - self.schedule.tail

    def fit(self) -> None:
        """Train until finished; Ctrl-C and SIGTERM save `last` and raise KeyboardInterrupt."""
        self._clock = time.perf_counter() - self.position.seconds
        for hook in self.hooks:
            hook.on_train_begin(self.view)
        ended: BaseException | None = None
        try:
            with Interrupt() as interrupt:
                self._fit(interrupt)
        except BaseException as error:
            ended = error
            raise
        finally:
            for hook in self.hooks:
                hook.on_train_end(self.view, ended)

    def _fit(self, interrupt: Interrupt) -> None:
        if not self.position.step:
            self._save()
        elif self.position.validated < self.position.step and (self.loader.sampler.position == 0 or self.finished):
            self._end_epoch(interrupt)
        while not (self.finished or self.paused):
            if self._run_epoch(interrupt):
                self._save()
                raise KeyboardInterrupt
            self._end_epoch(interrupt)

    def _run_epoch(self, interrupt: Interrupt) -> bool:
        """Train on what is left of the epoch; True if a signal asked to stop."""
        sampler = self.loader.sampler
        self._plan_epoch()
        self.parts.network.train()
        self._epoch = sampler.epoch + 1
        for hook in self.hooks:
            hook.on_epoch_begin(self.view, self._epoch)
        group: list[Batch] = []
        started, images = time.perf_counter(), 0
        for batch in self.loader:
            group.append(batch)
            if len(group) < self.options.accumulate and sampler.position < len(self.loader):
                continue
            self._step(group)
            images += sum(len(part.images) for part in group) * world_size()
            group = []
            if self._agree(interrupt.requested):
                return True
            if self.finished and sampler.position < len(self.loader):
                break
            if self.options.save_steps and self.position.step % self.options.save_steps == 0:
                self._save()
        self.guard.flush()
        held = peak_memory(str(self.fabric.device))
        speed = Speed(images / (time.perf_counter() - started), math.nan if held is None else held)
        for hook in self.hooks:
            hook.on_epoch_end(self.view, speed)
        return False

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of a whole epoch."""
        return -(-len(self.loader) // self.options.accumulate)

    def _plan_epoch(self) -> None:
        """With a time budget: let the augmentation's ramps and closing epochs follow the clock."""
        sampler, fraction = self.loader.sampler, self.fraction
        if self.options.minutes is None or sampler.position or not fraction or not sampler.total_epochs:
            return
        share = sampler.closing_epochs / sampler.total_epochs
        sampler.total_epochs = sampler.epoch / fraction  # type: ignore[assignment]
        sampler.closing_epochs = sampler.total_epochs * share  # type: ignore[assignment,operator]

    def _step(self, group: list[Batch]) -> None:
        """One optimiser step over the micro-batches of `group`."""
        step = self.position.step
        fraction = self.fraction
        place = float(step) if self.options.minutes is None else fraction * self.total_steps
        rate = set_rates(self.parts.optimizer, self.schedule, place)
        torch.manual_seed((self.seed * 1_000_003 + step) * 4096 + self.fabric.global_rank)
        totals: dict[str, Tensor] = {}
        for i, batch in enumerate(group):
            with self.fabric.no_backward_sync(self.training.forward, enabled=i + 1 < len(group)):
                losses = self._losses(batch, place, fraction)
                whole = torch.stack(list(losses.values())).sum() / len(group)  # the epoch's last may be short
                self.fabric.backward(whole)
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + value.detach() / len(group)
        if self.clip:
            self._clip_gradients()
        self.parts.precision.optimizer_step(self.parts.optimizer)
        self.parts.optimizer.zero_grad(set_to_none=True)
        self.parts.ema.update(self.parts.network.detector)
        self.position.step += 1
        files = [str(self.loader.data.records[i].path) for batch in group for i in batch.indices]
        self.guard.add(self.position.step, rate, totals, files)

    def _clip_gradients(self) -> None:
        """Clip the detector's gradient alone: Fabric would count whatever else the optimiser holds, the adapters too."""
        precision, optimizer = self.parts.precision, self.parts.optimizer
        precision.unscale_gradients(optimizer)
        own = set(self.parts.network.detector.parameters())
        parameters = [parameter for parameter in precision.main_params(optimizer) if parameter in own]
        torch.nn.utils.clip_grad_norm_(parameters, self.clip)

    def _losses(self, batch: Batch, place: float, fraction: float) -> dict[str, Tensor]:
        """Weighted loss terms of one micro-batch, "distill" among them where there is a teacher."""
        device = self.fabric.device
        images = batch.images.to(device, non_blocking=True).float().contiguous(memory_format=self.memory_format)
        targets = pad_targets(batch.boxes, batch.labels).to(device)
        neck = None
        teaching = self.teacher is not None and not (self.training.distill.stop_in_tail and self.in_tail)
        if self.teacher is not None and teaching:
            with torch.no_grad(), self.parts.precision.forward_context():
                neck = self.teacher.features(images)["neck"]
        raw, distill = self.training.forward(images, neck)
        losses = self.training.loss(raw, targets, fraction)
        if distill is not None:
            if teaching and self.position.step % self.options.log_steps == 0:
                check_not_zero(distill)
            end_weight = self.training.distill.end_weight
            losses["distill"] = distill * distill_weight(place, self.schedule.total, 1.0, end_weight)
        return losses

    def _tell_step(self, step: int, rate: float, losses: dict[str, float]) -> None:
        for hook in self.hooks:
            hook.on_step_end(self.view, Step(step, self._epoch, rate, losses))

    def _agree(self, requested: bool) -> bool:
        """Advance the clock; the first process's time and anybody's wish to stop hold for all."""
        self.position.seconds = time.perf_counter() - self._clock
        if world_size() == 1:
            return requested
        news = torch.tensor([float(requested), 0.0], device=self.fabric.device)
        news[1] = self.position.seconds if self.fabric.is_global_zero else 0.0
        torch.distributed.all_reduce(news)
        self.position.seconds = float(news[1])
        return bool(news[0] > 0)

    def _end_epoch(self, interrupt: Interrupt) -> None:
        """Validate if it is time to, keep the best, save `last`."""
        epoch = self.loader.sampler.epoch
        due = self.finished or self.paused or self.in_tail or epoch % self.options.evaluate_every == 0
        if self.training.validate is not None and due:
            started = time.perf_counter()
            result = self._validated(self.training.validate, interrupt)
            self._reserve = self.fabric.broadcast(time.perf_counter() - started)
            self._judge(result, epoch)
        self.position.validated = self.position.step
        self._agree(False)
        self._save_if_old()

    def _validated(self, validate: Callable[[DetectorModule], Validation], interrupt: Interrupt) -> Validation:
        """Score the averaged weights; a validation that is interrupted is repeated on resuming."""
        if world_size() > 1:
            self._save()
        try:
            interrupt.immediate = True
            if interrupt.requested:
                raise KeyboardInterrupt
            return validate(self.parts.ema.model) if self.fabric.is_global_zero else Validation({})
        except KeyboardInterrupt:
            if world_size() == 1:
                self._save()
            raise
        finally:
            interrupt.immediate = False

    def _judge(self, result: Validation, epoch: int) -> None:
        """Tell of a validation; a new best is written to best.safetensors."""
        numbers = self.fabric.broadcast(dict(result.numbers))
        score = worth(numbers, self.options.best)
        for hook in self.hooks:
            hook.on_validation(self.view, replace(result, numbers=dict(numbers), detector=None))
        if score > self.position.best or not self.position.best_epoch:  # -1 where no box could be found
            self.position.best, self.position.best_epoch, self.position.stale = score, epoch, 0
            told = (name for name in numbers if not name.startswith("loss") or name == self.options.best)
            kept = {name: numbers[name] for name in told}
            self._write_model("best", kept, epoch, result.detector)
        else:
            self.position.stale += 1

    def _write_model(
        self, name: str, numbers: Mapping[str, float], epoch: int, detector: DetectorModule | None = None
    ) -> None:
        if self.fabric.is_global_zero:
            extra = {"epoch": epoch, "step": self.position.step, "validation": dict(numbers)}
            path = self.training.folder / f"{name}.safetensors"
            save_checkpoint(path, detector or self.parts.ema.model, extra, self.training.passport)
            if name == "last":
                write_state(self.training.folder, self.parts.state(self.training.fingerprint))
            for hook in self.hooks:
                hook.on_checkpoint(self.view, path)

    def _save_if_old(self) -> None:
        """Save at the end of an epoch, unless that was done a moment ago; the last state is always saved."""
        old = self.fabric.broadcast(time.perf_counter() - self._saved) >= self.options.save_seconds
        if old or self.finished or self.paused:
            self._save()

    def _save(self) -> None:
        """Write `last`: the averaged model and the full state."""
        self.guard.flush()
        self._write_model("last", {}, self.loader.sampler.epoch)
        self.fabric.barrier()
        self._saved = time.perf_counter()
