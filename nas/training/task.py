"""What is trained on what, and what a training and its continuation must have in common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from nas.augment.pipeline import Augmentation
from nas.data.dataset import DetectionData
from nas.errors import UserError
from nas.models.base import DetectorModule
from nas.models.passport import Passport
from nas.options import Resize
from nas.spec import DetectorSpec, digest
from nas.training.options import DistillOptions, TrainerOptions
from nas.training.setup import Source
from nas.training.state import State


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


def as_saved(task: TrainingTask, state: State) -> TrainingTask:
    """The task as the state knows it: itself, or where it goes on to more epochs, with the number of then.

    UserError for fewer epochs, and for more where the clock ends the training.
    """
    known = state.get("fingerprint")
    before = known.get("epochs") if isinstance(known, dict) else None
    if not isinstance(before, int) or before == task.options.epochs:
        return task
    if before > task.options.epochs:
        raise UserError(f"this is a training of {before} epochs: it can go on to more, not to {task.options.epochs}")
    if task.options.minutes is not None:
        raise UserError("trainer.minutes ends this training by the clock: more epochs make it no longer")
    return replace(task, options=replace(task.options, epochs=before))


def fingerprint_of(task: TrainingTask, detector: DetectorModule) -> dict[str, object]:
    """What a run and its continuation must have in common, by the name that a refusal tells."""
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


def passport_facts(
    fingerprint: Mapping[str, object], table: str | None, known: Passport | None, resume: bool
) -> dict[str, str]:
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
