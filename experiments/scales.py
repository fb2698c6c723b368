"""How rows are trained: the named scales of scales.yaml as training tasks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.tables import FOLDER, Row, Table, detector_of, narrowed
from nas.errors import UserError
from nas.files import read_yaml
from nas.spec import DetectorSpec, to_dict

if TYPE_CHECKING:
    from nas.detection.dataset import DetectionData
    from nas.detection.training import TrainingTask
    from nas.detection.training_options import DistillOptions, TrainerOptions


@dataclass(frozen=True)
class Scale:
    """One way to train every row: data, size, seeds and overrides of the trainer's and augmentation's defaults."""

    name: str
    note: str
    device: str
    data: str
    image_size: int
    seeds: tuple[int, ...]
    trainer: Mapping[str, Any]
    augmentation: Mapping[str, Any]
    narrow: float = 1.0
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def minutes(self) -> float | None:
        """Length of one run in minutes, None where epochs decide."""
        return self.trainer.get("minutes")


def scale_names() -> tuple[str, ...]:
    """Names of all scales."""
    return tuple(read_yaml(FOLDER / "scales.yaml"))


def load_scale(name: str) -> Scale:
    """The scale of that name; raises UserError with the known names."""
    scales = read_yaml(FOLDER / "scales.yaml")
    if name not in scales:
        raise UserError(f"no scale {name!r}; there are {', '.join(scales)}")
    data = dict(scales[name])
    data["seeds"] = tuple(data["seeds"])
    return Scale(name=name, **data)


def spec_at(table: Table, row: Row, scale: Scale) -> DetectorSpec:
    """The detector of a row as the scale trains it."""
    spec = detector_of(table, row)
    if scale.narrow != 1.0:
        return narrowed(spec, scale.narrow, scale.image_size)
    return dataclasses.replace(spec, image_size=scale.image_size)


def set_fields(target: Any, changes: Mapping[str, Any]) -> Any:
    """Set dotted fields of nested dataclasses in place; raises UserError for one that does not exist."""
    for path, value in changes.items():
        place, *rest = path.split(".")
        owner = target
        for name in rest:
            owner, place = getattr(owner, place), name
        if not hasattr(owner, place):
            raise UserError(f"{type(target).__name__} has no field {path}")
        old = getattr(owner, place)
        setattr(owner, place, tuple(value) if isinstance(old, tuple) else value)
    return target


def options_at(row: Row, scale: Scale) -> tuple[TrainerOptions, DistillOptions]:
    """The scale's options with those of the row; raises UserError for a field that does not exist."""
    from nas.detection.training_options import DistillOptions, TrainerOptions

    options, distill = set_fields(TrainerOptions(), scale.trainer), DistillOptions()
    for key, value in row.training.items():
        group, _, name = key.partition(".")
        if group == "distill":
            set_fields(distill, {name: value})
        else:
            set_fields(options, {key: value})
    return options, distill


def training_recipe(table: Table, row: Row, scale: Scale) -> str:
    """What a row is at a scale, as text without names: rows of equal text are the same training for the same seed and data."""
    options, distill = options_at(row, scale)
    parts = [to_dict(spec_at(table, row, scale)), dataclasses.asdict(options)]
    if row.teacher:
        parts += [dataclasses.asdict(distill), {"teacher": training_recipe(table, table.row(row.teacher), scale)}]
    return json.dumps(parts, sort_keys=True)


def training_task(
    table: Table, row: Row, seed: int, scale: Scale, teacher: Path | None, data: str | None = None
) -> tuple[TrainingTask, DetectionData]:
    """The training of one row: what `nas.detection.training.run_training` takes, and the test split."""
    from experiments.data import experiment_splits
    from nas.detection.augment import Augmentation
    from nas.detection.training import TrainingTask

    options, distill = options_at(row, scale)
    distill.teacher = None if teacher is None else str(teacher)
    changed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in scale.augmentation.items()}
    augmentation = dataclasses.replace(Augmentation(), **changed)
    train, val, test = experiment_splits(data or scale.data)
    task = TrainingTask(
        model=spec_at(table, row, scale),
        train=train,
        val=val,
        options=options,
        augmentation=augmentation,
        distill=distill,
        image_size=scale.image_size,
        seed=seed,
        device="cpu" if scale.device == "cpu" else "auto",
    )
    return task, test
