"""Everything that a training can be told, as plain dataclasses; the defaults are DAMO-YOLO's recipe."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from nas.detection.detection_loss import LossOptions
from nas.detection.optimizer import OptimizerOptions
from nas.errors import UserError

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "fp64")

#: Trainer options that may differ between a run and its continuation.
FREE_OPTIONS = ("threads", "workers", "cache", "compile", "save_seconds", "save_steps", "log_steps")


@dataclass
class ScheduleOptions:
    """Learning rate over the training, lengths in epochs; tail_epochs None takes the augmentation's closing epochs."""

    warmup_epochs: float = 5.0
    tail_epochs: float | None = None
    end_ratio: float = 0.05
    warmup_power: float = 2.0
    shape: str = "cosine"
    warmup_bias: float | None = None
    warmup_momentum: float | None = None


@dataclass
class EmaOptions:
    """Average of the weights: momentum decay * (1 - exp(-update / ramp)).

    norm_images: measure the BatchNorm statistics of the average on so many training images before every validation; the
    best checkpoint holds them (0: the running ones, as official).
    """

    decay: float = 0.9998
    ramp: float = 2000.0
    norm_images: int = 0


@dataclass
class DistillOptions:
    """Distillation from `teacher` (a checkpoint; None: off).

    stop_in_tail: without teacher in the closing epochs, as the report writes (the official code keeps it on).
    """

    teacher: str | None = None
    kind: str = "cwd"
    weight: float = 1.0
    end_weight: float = 0.1
    tau: float = 1.0
    stop_in_tail: bool = False


@dataclass
class TrainerOptions:
    """How to train.

    epochs is also the scale of warm-up and tail; minutes: stop after that much wall time, validation included, with the
    schedules run to their end (such a run repeats only approximately, as it depends on the machine's speed).
    batch_size: images of one optimiser step over all processes; accumulate: micro-batches that it is split into (the
    losses' normalisers, like BatchNorm, then see the micro-batch).
    workers: processes that prepare pictures, of one thread each; threads: torch's, None takes the usable cores, shared by
    the processes of a machine (another number rounds otherwise).
    clip: L2 norm of the detector's gradient; None is 30 when distilling and off otherwise (official), 0 is off.
    evaluate_every: epochs between validations, every epoch in the tail; patience: validations without progress until
    the training stops (0: never). `last` is saved at the end of an epoch if the one before is older than save_seconds,
    and every save_steps steps (0: not).
    precision: auto is bf16 (fp16 on older GPUs) on CUDA and fp32 on the CPU; losses are in float32 always. fp64 is for
    proofs: several processes then give the losses of one to 1e-7, step after step.
    channels_last: None is yes, except in fp32 on the CPU: torch's BatchNorm sums this layout without care there, which
    leaves logits good to 2e-3 only; it is 1.2 times as fast for those who accept that.
    freeze: names of modules that are not trained, such as backbone or backbone.block_list.0.
    """

    epochs: int = 300
    minutes: float | None = None
    batch_size: int = 256
    accumulate: int = 1
    workers: int = 8
    threads: int | None = None
    cache: str = "none"
    precision: str = "auto"
    channels_last: bool | None = None
    compile: bool = False
    sync_batch_norm: bool = True
    clip: float | None = None
    evaluate_every: int = 10
    patience: int = 0
    save_seconds: float = 60.0
    save_steps: int = 0
    log_steps: int = 10
    freeze: list[str] = field(default_factory=list)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    ema: EmaOptions = field(default_factory=EmaOptions)

    def decisive(self) -> dict[str, Any]:
        """The values that decide what comes out, as plain data."""
        return {name: value for name, value in asdict(self).items() if name not in FREE_OPTIONS}

    def checked(self) -> TrainerOptions:
        """Itself; UserError for a value that cannot be used."""
        for name in ("epochs", "batch_size", "accumulate", "evaluate_every", "log_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"trainer.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("workers", "patience", "save_steps"):
            if getattr(self, name) < 0:
                raise UserError(f"trainer.{name} must not be negative, got {getattr(self, name)}")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"trainer.threads must be at least 1, got {self.threads}")
        if self.minutes is not None and self.minutes <= 0:
            raise UserError(f"trainer.minutes must be positive, got {self.minutes}")
        if self.precision not in PRECISIONS:
            raise UserError(f"trainer.precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.schedule.shape not in ("cosine", "linear", "constant"):
            raise UserError(f"trainer.schedule.shape must be cosine, linear or constant, got {self.schedule.shape!r}")
        return self

    def local_batch(self, processes: int) -> int:
        """Images of one micro-batch in one process."""
        parts = processes * self.accumulate
        if self.batch_size % parts:
            raise UserError(
                f"trainer.batch_size={self.batch_size} must be a multiple of {parts} ({processes} processes x "
                f"accumulate={self.accumulate})"
            )
        return self.batch_size // parts
