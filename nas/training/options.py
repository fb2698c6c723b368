"""Everything that a training can be told, as plain dataclasses; the defaults are DAMO-YOLO's recipe."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Annotated

from annotated_types import Ge, Le, Lt

from nas.augment.pipeline import Augmentation
from nas.errors import UserError
from nas.inference.scoring import NUMBERS
from nas.loss import DISTILLATIONS, LossOptions
from nas.options import MOST, Count, CountOrNone, Name, NotNegative, OneOf, Positive, Rule, Share, Workers, check_object

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "fp64")

#: Trainer options that may differ between a run and its continuation.
FREE_OPTIONS = (
    "threads", "workers", "cache", "compile", "save_seconds", "save_steps", "log_steps", "validation_loss",
)  # fmt: skip

#: Trainer options that states and digests of earlier versions do not know.
LATER = ("best", "repeat_threshold")


@dataclass
class OptimizerOptions:
    """name: sgd (Nesterov) or adamw; lr_per_image times the batch of one optimiser step is the peak rate, unless `lr`
    gives the peak itself."""

    name: Annotated[str, OneOf("sgd", "adamw")] = "sgd"
    lr_per_image: Positive = 0.01 / 64
    lr: Positive | None = None
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    weight_decay: NotNegative = 5e-4

    def peak_rate(self, batch: int) -> float:
        """Peak learning rate for `batch` images a step (all processes and accumulated batches together)."""
        return self.lr if self.lr is not None else self.lr_per_image * batch


@dataclass
class ScheduleOptions:
    """Learning rate over the training, lengths in epochs; tail_epochs None takes the augmentation's closing epochs."""

    warmup_epochs: NotNegative = 5.0
    tail_epochs: NotNegative | None = None
    end_ratio: Share = 0.05
    warmup_power: Annotated[float, Ge(0), Le(10)] = 2.0
    shape: Annotated[str, OneOf("cosine", "linear", "constant")] = "cosine"
    warmup_bias: NotNegative | None = None
    warmup_momentum: Annotated[float, Ge(0), Lt(1)] | None = None


@dataclass(frozen=True)
class Phases:
    """Epochs of the warm-up, of the tail at the constant rate, and of the closing augmentation."""

    warmup: float
    tail: float
    closing: float
    shortened: bool = False

    @classmethod
    def of(cls, options: TrainerOptions, augmentation: Augmentation) -> Phases:
        """Those of a recipe; a training too short for them gives them half of its epochs, in their proportion."""
        warmup, tail, closing = (
            options.schedule.warmup_epochs,
            options.schedule.tail_epochs,
            augmentation.closing_epochs,
        )
        tail = float(closing) if tail is None else tail
        if warmup + tail <= options.epochs and not (augmentation.mosaic and closing >= options.epochs):
            return cls(warmup, tail, closing)
        share = 0.5 * options.epochs / (warmup + max(tail, closing))
        return cls(warmup * share, tail * share, closing * share, True)

    def __str__(self) -> str:
        parts = (
            ("warm-up", self.warmup),
            ("constant rate at the end", self.tail),
            ("closing augmentation", self.closing),
        )
        return ", ".join(f"{name} {epochs:.2g}" for name, epochs in parts)


@dataclass
class EmaOptions:
    """Average of the weights: momentum decay * (1 - exp(-update / ramp)).

    norm_images: measure the BatchNorm statistics of the average on so many training images before every validation; the
    best checkpoint holds them (0: the running ones, as official).
    """

    decay: Annotated[float, Ge(0), Lt(1)] = 0.9998
    ramp: Positive = 2000.0
    norm_images: CountOrNone = 0


@dataclass
class DistillOptions:
    """Distillation from `teacher` (a checkpoint; None: off).

    stop_in_tail: without teacher in the closing epochs, as the report writes (the official code keeps it on).
    """

    teacher: Name | None = None
    kind: Annotated[str, OneOf(*DISTILLATIONS)] = "cwd"
    weight: NotNegative = 1.0
    end_weight: NotNegative = 0.1
    tau: Positive = 1.0
    stop_in_tail: bool = False


#: Where a training runs; a number is that of a GPU.
DEVICE = Rule(
    "auto, cpu, cuda or cuda:0, cuda:1 ...", lambda text: bool(re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", text))
)

#: A number, or to be found out. (No `Count | Literal`: the experiments' scales are read by OmegaConf, which has no such union.)
BATCH = Rule(
    "a whole number of at least 1, or auto", lambda value: value == "auto" or type(value) is int and 1 <= value <= MOST
)


@dataclass
class TrainerOptions:
    """How to train.

    epochs is also the scale of warm-up and tail; minutes: stop after that much wall time, validation included, with the
    schedules run to their end (such a run repeats only approximately, as it depends on the machine's speed).
    batch_size: images of one optimiser step over all processes, or auto: the most that memory holds (nas.training.batch_size;
    `nas.train` writes the number into config.yaml); accumulate: micro-batches that it is split into (the
    losses' normalisers, like BatchNorm, then see the micro-batch).
    workers: processes that prepare pictures, of one thread each; threads: torch's, None takes the usable cores, shared by
    the processes of a machine (another number rounds otherwise).
    clip: L2 norm of the detector's gradient; None is 30 when distilling and off otherwise (official), 0 is off.
    evaluate_every: epochs between validations, every epoch in the tail; validation_loss: they log the loss, too; best: the
    figure of a validation that decides which weights are the best; patience: validations without progress of it until the
    training stops (0: never). `last` is saved at the end of an epoch if the one before is older than save_seconds,
    and every save_steps steps (0: not).
    precision: auto is bf16 (fp16 on older GPUs) on CUDA and fp32 on the CPU; losses are in float32 always. fp64 is for
    proofs: several processes then give the losses of one to 1e-7, step after step.
    channels_last: None is yes, except in fp32 on the CPU: torch's BatchNorm sums this layout without care there, which
    leaves logits good to 2e-3 only; it is 1.2 times as fast for those who accept that.
    repeat_threshold: images with a class that fewer than this share of the images show come more often, sqrt(threshold /
    share) times an epoch (repeat factor sampling, 0: all once; LVIS takes 0.001, small data more); epochs grow by it.
    freeze: names of modules that are not trained, such as backbone or backbone.block_list.0.
    """

    epochs: Count = 300
    minutes: Positive | None = None
    batch_size: Annotated[int | str, BATCH] = 256
    accumulate: Count = 1
    workers: Workers = 8
    threads: Annotated[int, Ge(1), Le(1024)] | None = None
    cache: Annotated[str, OneOf("none", "ram", "auto")] = "none"
    precision: Annotated[str, OneOf(*PRECISIONS)] = "auto"
    channels_last: bool | None = None
    compile: bool = False
    sync_batch_norm: bool = True
    clip: NotNegative | None = None
    evaluate_every: Count = 10
    validation_loss: bool = True
    best: Annotated[str, OneOf(*NUMBERS, "loss")] = "ap"
    patience: CountOrNone = 0
    save_seconds: NotNegative = 60.0
    save_steps: CountOrNone = 0
    log_steps: Count = 10
    repeat_threshold: Share = 0.0
    freeze: list[Name] = field(default_factory=list)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    ema: EmaOptions = field(default_factory=EmaOptions)

    def decisive(self) -> dict[str, object]:
        """The values that decide what comes out, as plain data; what did not exist once counts only where it is used."""
        usual = asdict(TrainerOptions())
        facts = {
            name: value
            for name, value in asdict(self).items()
            if name not in FREE_OPTIONS and not (name in LATER and value == usual[name])
        }
        if not self.loss.class_balance:
            facts["loss"].pop("class_balance")
        return facts

    def checked(self) -> TrainerOptions:
        """Itself; UserError for a value that cannot be used."""
        check_object(self, "trainer")
        return self

    @property
    def step_images(self) -> int:
        """Images of one optimiser step; UserError where it is still to be found out."""
        if isinstance(self.batch_size, str):
            raise UserError("trainer.batch_size=auto is for nas.train and Detector.train: give the number here")
        return self.batch_size

    def local_batch(self, processes: int) -> int:
        """Images of one micro-batch in one process."""
        parts = processes * self.accumulate
        if self.step_images % parts:
            raise UserError(
                f"trainer.batch_size={self.batch_size} must be a multiple of {parts} ({processes} processes x "
                f"accumulate={self.accumulate})"
            )
        return self.step_images // parts
