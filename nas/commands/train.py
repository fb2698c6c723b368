"""Training by configuration, from the command line or from Python: data report, training, score on the test split."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from nas.augment.pipeline import Augmentation
from nas.config import compose_config
from nas.data.sources import DataConfig, load_splits
from nas.errors import UserError
from nas.files import is_spec_file, read_spec_document, read_yaml, write_json
from nas.options import ImageSize, Name, Seed, read_object
from nas.resume import continuation, continued, store_settings
from nas.training.options import DEVICE, FREE_OPTIONS, DistillOptions, TrainerOptions

if TYPE_CHECKING:
    from nas.data.dataset import DetectionData
    from nas.data.report import DataReport
    from nas.models.base import DetectorModule
    from nas.training.hooks import Hook
    from nas.training.run import TrainingResult
    from nas.training.task import TrainingTask

#: Validation pictures of a report, and the most boxes predicted on one, the surest.
SHOWN, DRAWN = 6, 40
#: What may differ between a run and its continuation.
FREE = ("resume", "device", "progress", *(f"trainer.{name}" for name in FREE_OPTIONS))
#: What stays unless it is given, and what a run may go on further with.
ALSO = ("report", "loggers")
FURTHER = ("trainer.epochs",)


@dataclass(frozen=True)
class HeadOptions:
    """one_to_one: without NMS, by a second head that is trained one-to-one (nas.models.head); None: as the model says."""

    one_to_one: bool | None = None


@dataclass
class TrainCommand:
    """model: a published or baseline name, a spec file (best.yaml), or a checkpoint to fine-tune.

    weights: a checkpoint of another network, whose entries that fit are the start. image_size null: the model's own;
    resume: the folder of an interrupted run, alone, or of any run with more trainer.epochs; test: also score the best
    checkpoint on the data's test split; report: also leave report.html and pictures, for which the best checkpoint
    predicts the validation split once more; loggers: beside steps.csv and epochs.jsonl, any of tensorboard, wandb, mlflow.
    """

    model: Name = "damo-yolo-t"
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    distill: DistillOptions = field(default_factory=DistillOptions)
    head: HeadOptions = field(default_factory=HeadOptions)
    weights: Name | None = None
    image_size: ImageSize | None = None
    seed: Seed = 0
    device: Annotated[str, DEVICE] = "auto"
    test: bool = True
    report: bool = True
    loggers: list[Name] = field(default_factory=lambda: ["tensorboard"])
    resume: Name | None = None
    progress: bool = True


def task_of(config: TrainCommand) -> tuple[TrainingTask, DetectionData | None, DataReport]:
    """The task of a composed configuration, the data's test split (or None), and the data report.

    Raises UserError for data that cannot be used.
    """
    from nas.training.task import TrainingTask

    splits, report = load_splits(config.data, ("train", "val", "test") if config.test else ("train", "val"))
    if "train" not in splits:
        raise UserError(
            f"data {config.data.name} has no training split: set data.train.images and data.train.annotations"
        )
    task = TrainingTask(
        config.model,
        splits["train"],
        splits.get("val"),
        config.trainer,
        config.augmentation,
        config.distill,
        config.image_size,
        config.seed,
        config.device,
        config.weights,
        config.head.one_to_one,
        config.loggers,
        None if config.resume else _table_digest(config.model),
        config.data.resize,
    )
    return task, splits.get("test"), report


def with_batch(config: TrainCommand, task: TrainingTask) -> TrainCommand:
    """The configuration with the number that trainer.batch_size=auto comes to, which the task then has too."""
    if config.trainer.batch_size != "auto":
        return config
    from nas.training.batch_size import fitting_batch

    task.options = replace(config.trainer, batch_size=fitting_batch(task))
    return replace(config, trainer=task.options)


def _table_digest(model: str) -> str | None:
    """The latency table by which a search found the network of a spec file, as that file tells."""
    if not (is_spec_file(model) and Path(model.partition(".jsonl:")[0]).is_file()):
        return None
    known: Any = read_spec_document(model)[1].get("provenance")
    found = known.get("table_digest") if isinstance(known, dict) else None
    return None if found is None else str(found)


def train(
    model: str | Path, data: str, folder: str | Path | None = None, hooks: Sequence[Hook] = (), **options: object
) -> TrainingResult:
    """Train, fine-tune or distil a detector; the same as `python -m nas.train model=... data=...`.

    model: a name, a spec file or a checkpoint; data: a name of conf/data or a path; folder: where the run is left (default:
    outputs/train/DATE). options: settings of that command, nested by group (trainer={"epochs": 30},
    distill={"teacher": "..."}), or a group's file by name (trainer="cpu_small"); resume=FOLDER with the settings of the run
    in it goes on there, with a larger number of epochs further. hooks: what watches the training
    (nas.training.hooks).
    """
    config = compose_config("train", TrainCommand, {"model": str(model), "data": data, **options})
    place = Path(folder or config.resume or Path("outputs/train") / time.strftime("%Y-%m-%d_%H-%M-%S"))
    return train_from_config(config, place, hooks)


def train_in(command: TrainCommand, folder: Path, given: Sequence[str] = ()) -> TrainingResult:
    """Train in `folder`, or go on in that of the run to resume; `given`: the settings of the command line."""
    if command.resume is not None:
        folder = Path(command.resume)
        command = continued(command, given, FREE, (*ALSO, *FURTHER))
    return train_from_config(command, folder, given=given)


def train_from_config(
    config: TrainCommand, folder: Path, hooks: Sequence[Hook] = (), given: Sequence[str] = ()
) -> TrainingResult:
    """Train in `folder`, whose config.yaml keeps the settings; print what came out, or how a stopped run goes on."""
    from nas.inference.evaluator import evaluate
    from nas.models.checkpoint import load_checkpoint
    from nas.training.best import title
    from nas.training.run import run_training
    from nas.training.setup import device_place

    first = int(os.environ.get("RANK", 0)) == 0
    task, test, report = task_of(config)
    if first and config.progress:
        for line in report.summary():
            print(line)
    config = with_batch(config, task)
    if config.resume is None:
        if first:
            store_settings(config, folder, FREE)
    elif (kept := further(config, folder)) is not None and first:
        store_settings(kept, folder, FREE)
    try:
        result = run_training(task, folder, config.resume is not None, config.progress, hooks)
    except KeyboardInterrupt:
        if first:
            print(f"stopped; go on with: {continuation(folder, given, (*FREE, *ALSO))}", flush=True)
        raise
    if not first:
        return result
    best = f"best val {title(result.metric)} {result.score:.3f} (epoch {result.epoch})"
    print(f"{result.steps} steps in {result.seconds / 60:.1f} min; {best}")
    reporting = config.report and task.val is not None
    if test is not None or reporting:
        model = load_checkpoint(result.best).to(device_place(config.device)).fuse()
        scores = None
        if test is not None:
            tested = evaluate(model, test, model.image_size)
            scores = tested.numbers
            write_json(folder / "test.json", tested.to_dict())
            print(f"test AP {tested.ap:.3f}  AP50 {tested.ap50:.3f}  AP75 {tested.ap75:.3f}  ({tested.images} images)")
        if reporting and task.val is not None:
            leave_report(result, model, task.val, scores)
    print(f"model: {result.best}")
    return result


def further(config: TrainCommand, folder: Path) -> TrainCommand | None:
    """The settings of the run in the folder with the larger number of epochs to which `config` goes on; None if it is the
    same. UserError for a smaller one."""
    path = folder / "config.yaml"
    if not path.is_file():
        return None
    kept = read_object(TrainCommand, read_yaml(path), f"{path}:")
    before, now = kept.trainer.epochs, config.trainer.epochs
    if now < before:
        raise UserError(f"{folder} is a training of {before} epochs: it can go on to more, not to {now}")
    return replace(kept, trainer=replace(kept.trainer, epochs=now)) if now > before else None


def leave_report(
    result: TrainingResult, model: DetectorModule, data: DetectionData, test: Mapping[str, float] | None = None
) -> None:
    """Score the validation data once more by the best weights, fused, and write report.html beside them.

    Whatever fails is told and left out: a training is not lost for the sake of a picture.
    """
    try:
        path = _report(result, model, data, test)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        print(f"warning: the report is left out: {type(error).__name__}: {reason}")
    else:
        print(f"report: {path}")


def _report(
    result: TrainingResult, model: DetectorModule, data: DetectionData, test: Mapping[str, float] | None
) -> Path:
    from nas.data.images import decode
    from nas.data.loader import build_loader
    from nas.inference.evaluator import detect
    from nas.inference.scoring import score_detections
    from nas.report.training import TrainingRecord, write_training_report
    from nas.training.averaging import side_by_side
    from nas.training.best import title
    from nas.training.hooks import read_epochs

    loader = build_loader(data, min(8, len(data)), model.image_size, train=False, resize=model.resize)
    found, times = detect(model, loader)
    scored = score_detections(data, [found[i] for i in range(len(data))], milliseconds=times)
    shown = {}
    for index in sorted({place * (len(data) - 1) // (SHOWN - 1) for place in range(SHOWN)}):
        record, boxes = data.records[index], found[index]
        sure = boxes.scores >= scored.best_f1[1]
        predicted = boxes.boxes[sure][:DRAWN], boxes.labels[sure][:DRAWN]
        shown[record.path.name] = side_by_side(decode(record), (record.boxes, record.labels), predicted, data.classes)
    name = f"Training of {getattr(model, 'name', '') or 'a searched detector'} on {data.name}"
    best = "" if result.metric == "ap" else title(result.metric)
    return write_training_report(
        TrainingRecord(name, result.folder, read_epochs(result.folder), result.epoch, scored, shown, test, best)
    )
