"""What watches a training: hooks are told everything that happens, and nothing that they get reaches the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nas.models.base import DetectorModule
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
    """Images a second over an epoch (or what was left of it on resuming), and the peak of memory in MiB."""

    images_per_second: float
    memory_mb: float


@dataclass(frozen=True)
class Validation:
    """Scores by name, `ap` first; pictures (H, W, 3) and curves (recall, precision) of each class by name.

    detector: what was scored, if it is not the very average (None for hooks).
    """

    numbers: Mapping[str, float]
    images: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    curves: Mapping[str, tuple[NDArray, NDArray]] = field(default_factory=dict)
    detector: DetectorModule | None = None


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
