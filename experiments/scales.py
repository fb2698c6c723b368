"""How rows are trained: the scales of experiments/scale as training tasks."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.data import available, experiment_splits
from experiments.evidence import read_record
from experiments.tables import FOLDER, Row, Table, detector_of, narrowed
from nas.augment.pipeline import Augmentation
from nas.config import one_line
from nas.errors import UserError
from nas.spec import DetectorSpec, to_dict
from nas.training.options import DistillOptions, TrainerOptions

if TYPE_CHECKING:
    from nas.data.dataset import DetectionData
    from nas.training.task import TrainingTask


@dataclass
class Scale:
    """One way to train every row: schema of the files in experiments/scale.

    device: cpu, or gpu for scales that wait until one is there; narrow multiplies all widths, the structure stays;
    smoke: shows that the path works; its APs rank nothing and stay out of the tables.
    """

    name: str = ""
    note: str = ""
    device: str = "cpu"
    smoke: bool = False
    data: str = "bccd"
    image_size: int = 640
    narrow: float = 1.0
    seeds: list[int] = field(default_factory=lambda: [0])
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass
class RowConfig:
    """Schema of experiments/row.yaml, one training of one row.

    data: a name of conf/data (None: the scale's); teacher: a checkpoint, for rows that have one.
    """

    table: str = "???"
    row: str = "???"
    scale: Scale = field(default_factory=Scale)
    seed: int = 0
    data: str | None = None
    teacher: str | None = None


def scale_names() -> tuple[str, ...]:
    """Names of all scales, the longest trainings of the widest networks first."""

    def size(name: str) -> tuple[float, int]:
        scale = read_record(_file(name))
        return scale["image_size"] * scale.get("narrow", 1.0), scale["trainer"]["epochs"]

    return tuple(sorted((path.stem for path in (FOLDER / "scale").glob("*.yaml")), key=size, reverse=True))


def load_scale(name: str) -> Scale:
    """The scale of that name; raises UserError with the known names, or for a value that the file cannot hold."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if name not in scale_names():
        raise UserError(f"no scale {name!r}; there are {', '.join(scale_names())}")
    try:
        scale = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Scale), scale_document(name)))
    except OmegaConfBaseException as error:
        raise UserError(f"{_file(name)}: {one_line(error)}") from None
    assert isinstance(scale, Scale)
    return scale


def scale_document(name: str) -> dict[str, Any]:
    """What the scale's file says."""
    return read_record(_file(name))


def _file(name: str) -> Path:
    return FOLDER / "scale" / f"{name}.yaml"


def data_of(scale: Scale) -> str:
    """The scale's data set, or the drawn one where it is not at hand (COCO is never replaced)."""
    return scale.data if scale.data == "coco" or available(scale.data) else "shapes"


def spec_at(table: Table, row: Row, scale: Scale) -> DetectorSpec:
    """The detector of a row as the scale trains it."""
    spec = detector_of(table, row)
    if scale.narrow != 1.0:
        return narrowed(spec, scale.narrow, scale.image_size)
    return dataclasses.replace(spec, image_size=scale.image_size)


def options_at(row: Row, scale: Scale) -> tuple[TrainerOptions, DistillOptions, Augmentation]:
    """The scale's options under those of the row; raises UserError for a field or a value that cannot be."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    overrides = {**row.training, **row.at.get(scale.name, {})}
    if not overrides:
        return copy.deepcopy((scale.trainer, DistillOptions(), scale.augmentation))
    groups = OmegaConf.create(
        {"trainer": scale.trainer, "distill": DistillOptions(), "augmentation": scale.augmentation}
    )
    OmegaConf.set_struct(groups, True)
    for key, value in overrides.items():
        try:
            OmegaConf.update(groups, key, value)
        except OmegaConfBaseException as error:
            raise UserError(f"row {row.name!r}, training {key}={value}: {one_line(error)}") from None
    return tuple(OmegaConf.to_object(groups[name]) for name in groups)  # type: ignore[return-value]


def training_recipe(table: Table, row: Row, scale: Scale) -> str:
    """Digest of what a row is at a scale: rows of equal digests are the same training for the same seed and data."""
    options, distill, augmentation = options_at(row, scale)
    parts: list[Any] = [to_dict(spec_at(table, row, scale)), options.decisive(), augmentation.decisive()]
    if row.teacher:
        parts += [dataclasses.asdict(distill), training_recipe(table, table.row(row.teacher), scale)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def require_device(scale: Scale) -> None:
    """Raise UserError if the scale needs a GPU and there is none."""
    if scale.device == "gpu":
        import torch

        if not torch.cuda.is_available():
            raise UserError(f"scale {scale.name} needs a GPU and torch sees none; its runs wait in the queue")


def training_task(
    table: Table, row: Row, seed: int, scale: Scale, teacher: Path | None, data: str
) -> tuple[TrainingTask, DetectionData]:
    """The training of one row: what `nas.training.run.run_training` takes, and the test split."""
    from nas.training.task import TrainingTask

    options, distill, augmentation = options_at(row, scale)
    distill.teacher = None if teacher is None else str(teacher)
    train, val, test = experiment_splits(data)
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
