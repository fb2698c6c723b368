"""Options of training, evaluation, prediction and export: ranges, words and types, refused before anything is read."""

from __future__ import annotations

import math
from typing import Any

import pytest

from nas.augment.pipeline import Augmentation
from nas.commands.evaluate import EvaluateCommand
from nas.commands.train import TrainCommand
from nas.config import compose_config
from nas.deploy import ExportSettings
from nas.errors import UserError
from nas.inference import PredictCommand
from nas.training.options import Phases, ScheduleOptions, TrainerOptions

SENSELESS: dict[str, tuple[Any, ...]] = {
    "trainer.epochs": (0, -1, 2.5),
    "trainer.minutes": (0, -1.0, math.nan),
    "trainer.batch_size": (0, -1),
    "trainer.workers": (-1, 10**6),
    "trainer.cache": ("disk",),
    "trainer.precision": ("fp8",),
    "trainer.clip": (-1.0, math.nan, math.inf),
    "trainer.evaluate_every": (0,),
    "trainer.best": ("f1", "ap90", ""),
    "trainer.save_seconds": (-1.0, math.nan),
    "trainer.freeze": ([""], [3, None]),
    "trainer.repeat_threshold": (-0.1, 1.5),
    "trainer.loss.class_balance": (-1.0, 2.0),
    "trainer.optimizer.name": ("adam",),
    "trainer.optimizer.lr": (-1.0, 0.0, math.inf),
    "trainer.optimizer.lr_per_image": (0.0, -1e-3),
    "trainer.optimizer.momentum": (-1.0, 1.0, 1.5),
    "trainer.optimizer.weight_decay": (-0.1,),
    "trainer.schedule.shape": ("step",),
    "trainer.schedule.end_ratio": (-0.1, 1.5),
    "trainer.schedule.warmup_epochs": (-1.0,),
    "trainer.schedule.tail_epochs": (-1.0,),
    "trainer.schedule.warmup_momentum": (1.0, -0.5),
    "trainer.loss.assigner": ("hungarian",),
    "trainer.loss.overlap": ("diou",),
    "trainer.loss.box_weight": (-2.0,),
    "trainer.loss.distance_margin": (1.0, -0.1),
    "trainer.ema.decay": (5.0, 1.0, -0.1),
    "trainer.ema.ramp": (0.0, -3.0),
    "trainer.ema.norm_images": (-1,),
    "distill.kind": ("fitnet",),
    "distill.tau": (0.0,),
    "distill.weight": (-1.0,),
    "augmentation.mosaic": (1.5, -0.1),
    "augmentation.scale": ([1], [2.0, 1.0], [0.0, 1.0], [1, 2, 3], [0.5, math.inf], "big"),
    "augmentation.copy_paste": (-0.1, 1.5),
    "augmentation.mixup_scale": ([-1.0, 1.0],),
    "augmentation.rotation": (-1.0, 1000.0),
    "augmentation.shear": (90.0,),
    "augmentation.translation": (5.0,),
    "augmentation.closing_epochs": (-5, 1.5),
    "augmentation.mosaic_pool": (-1,),
    "augmentation.multi_scale": (2.0,),
    "data.mode": ("lax",),
    "data.num_classes": (0,),
    "image_size": ("a", -64, 33, 0),
    "seed": (-1, 2**32, 1.5),
    "device": ("tpu", "cuda:x", "cuda:-1", "cpu:1"),
    "resume": ("",),
    "model": ("",),
}
OTHERS: tuple[tuple[str, type, dict[str, tuple[Any, ...]]], ...] = (
    (
        "evaluate",
        EvaluateCommand,
        {
            "batch_size": (0, -1),
            "workers": (-1,),
            "iou_threshold": (-3, 1.5),
            "score_threshold": (-0.1, math.nan),
            "max_detections": (0,),
            "max_candidates": (0, -5),
            "split": ("dev",),
            "image_size": ("a", 33),
            "rows": (-1,),
        },
    ),
    (
        "predict",
        PredictCommand,
        {
            "batch": (0, -1),
            "iou_threshold": (-3,),
            "max_detections": (0,),
            "resize": ("crop",),
            "rows": (-1,),
            "source": ("",),
        },
    ),
)
REQUIRED = {"model": "m", "source": "s"}


@pytest.mark.parametrize(
    ("command", "schema", "key", "value"),
    [("train", TrainCommand, key, value) for key, values in SENSELESS.items() for value in values]
    + [
        (name, schema, key, value)
        for name, schema, cases in OTHERS
        for key, values in cases.items()
        for value in values
    ],
)
def test_senseless_options_are_refused_in_one_line(command: str, schema: type, key: str, value: Any) -> None:
    required = {name: text for name, text in REQUIRED.items() if name in schema.__dataclass_fields__}  # type: ignore[attr-defined]
    with pytest.raises(UserError) as error:
        compose_config(command, schema, required | {key: value})
    line = str(error.value)
    assert "\n" not in line and key.split(".")[-1] in line


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "coreml"},
        {"precision": "int4"},
        {"opset": 17},  # what the exporter converts down to it is no valid graph for some detectors
        {"opset": 99},
        {"batch": 0},
        {"calibration": "best"},
        {"check_images": 0},
        {"keep_float": ("",)},
        {"image_size": 100},
        {"seed": -1},
        {"iou_threshold": -3},
    ],
)
def test_senseless_exports_are_refused_before_a_model_is_read(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"^{next(iter(wrong))}.* must be .*, got "):
        ExportSettings(**wrong)


def test_predict_without_a_source_says_so() -> None:
    with pytest.raises(UserError, match="source is not given: add source="):
        compose_config("predict", PredictCommand, {"model": "m"})


@pytest.mark.parametrize(
    ("epochs", "warmup", "tail", "closing", "expected"),
    [
        (300, 5.0, None, 16, Phases(5.0, 16.0, 16)),
        (21, 5.0, None, 16, Phases(5.0, 16.0, 16)),
        (19, 3.0, None, 16, Phases(3.0, 16.0, 16)),
        (12, 3.0, 0.0, 10, Phases(3.0, 0.0, 10)),
        (2, 3.0, None, 16, Phases(3 / 19, 16 / 19, 16 / 19, True)),
        (5, 0.0, 0.0, 10, Phases(0.0, 0.0, 2.5, True)),
        (1, 3.0, 0.0, 10, Phases(1.5 / 13, 0.0, 5 / 13, True)),
    ],
)
def test_phases_scale_with_short_runs_alone(
    epochs: int, warmup: float, tail: float | None, closing: int, expected: Phases
) -> None:
    options = TrainerOptions(epochs=epochs, schedule=ScheduleOptions(warmup_epochs=warmup, tail_epochs=tail))
    found = Phases.of(options, Augmentation(closing_epochs=closing))
    assert (found.warmup, found.tail, found.closing) == pytest.approx(
        (expected.warmup, expected.tail, expected.closing)
    )
    assert found.shortened == expected.shortened
    assert not found.shortened or found.warmup + max(found.tail, found.closing) == pytest.approx(epochs / 2)


def test_without_mosaic_closing_epochs_need_no_room() -> None:
    options = TrainerOptions(epochs=5, schedule=ScheduleOptions(warmup_epochs=1, tail_epochs=0))
    assert not Phases.of(options, Augmentation(mosaic=0.0, closing_epochs=10)).shortened
