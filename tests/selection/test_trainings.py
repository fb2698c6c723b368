"""A training that goes from rung to rung is the training that was never interrupted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nas.errors import UserError
from nas.models.baselines import build_baseline
from nas.models.checkpoint import save_checkpoint
from nas.models.detector import build_detector
from nas.selection.portfolio import Finalist
from nas.selection.trainings import Trainings, epoch_seconds
from nas.spec import digest
from nas.training import trainer
from nas.training.run import run_training
from nas.training.task import TrainingTask


@pytest.fixture(scope="module")
def task(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> TrainingTask:
    task: TrainingTask = tiny.tiny_task(tmp_path_factory.mktemp("data"), {"epochs": 5, "evaluate_every": 2})
    return task


def finalist(task: TrainingTask) -> Finalist:
    return Finalist("tiny", "searched", "", "", task.model, digest(task.model), {"latency_ms": 1.0})


@pytest.mark.slow
def test_rungs_equal_a_straight_training_byte_by_byte(task: TrainingTask, tmp_path: Path) -> None:
    trainings = Trainings(task, tmp_path / "candidates")
    rungs = [trainings(finalist(task), 0, epochs) for epochs in (2, 4, 5)]
    run_training(task, tmp_path / "straight", progress=False)
    place = trainings.place(finalist(task), 0)
    for name in ("last.safetensors", "best.safetensors", "steps.csv", "epochs.jsonl"):
        assert (place / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
    curve = trainings.curve(finalist(task), 0)
    assert [ap for ap, _ in rungs] == [curve[2], curve[4], curve[5]] and rungs[-1][1] == max(curve.values())


def test_what_a_network_starts_with_is_counted(task: TrainingTask, tiny: ModuleType, tmp_path: Path) -> None:
    """Of its own kind everything fits, of a wider one what has the same shape; of another family nothing."""
    classes = task.train.classes
    files = [
        save_checkpoint(tmp_path / f"{width}.safetensors", build_detector(tiny.tiny_spec(width), classes=classes))
        for width in (8, 16)
    ]
    counts = [Trainings(replace(task, weights=str(file)), tmp_path).kept(finalist(task)) for file in files]
    assert counts[0][0] == counts[0][1] == counts[1][1] and 0 < counts[1][0] < counts[0][0]
    other = save_checkpoint(tmp_path / "yolo.safetensors", build_baseline("yolo11n", 5, 64, list(classes)))
    with pytest.raises(UserError, match="none of its entries fits the network"):
        Trainings(replace(task, weights=str(other)), tmp_path).kept(finalist(task))


def test_a_rung_that_is_done_is_read_back(task: TrainingTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = Trainings(task, tmp_path)
    first = trainings(finalist(task), 0, 2)
    monkeypatch.setattr("nas.selection.trainings.run_training", lambda *_, **__: pytest.fail("trained again"))
    assert trainings(finalist(task), 0, 2) == first


@pytest.mark.parametrize("broken", ["best.safetensors", pytest.param("last.safetensors", marks=pytest.mark.slow)])
def test_a_fault_behind_the_validation_is_made_good(
    task: TrainingTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    whole, hurt = Trainings(task, tmp_path / "whole"), Trainings(task, tmp_path / "hurt")
    expected = whole(finalist(task), 0, 2)
    written = trainer.save_checkpoint

    def full(path: Path, model: Any, extra: dict[str, Any], *rest: Any) -> Path:
        if path.name == broken and extra["epoch"] == 2:
            raise UserError("No space left on device")
        return written(path, model, extra, *rest)

    monkeypatch.setattr(trainer, "save_checkpoint", full)
    with pytest.raises(UserError, match="No space left"):
        hurt(finalist(task), 0, 2)
    assert 2 in hurt.curve(finalist(task), 0)  # the log knows of it already
    monkeypatch.setattr(trainer, "save_checkpoint", written)
    assert hurt(finalist(task), 0, 2) == expected
    places = [trainings.place(finalist(task), 0) for trainings in (whole, hurt)]
    for name in ("last.safetensors", "best.safetensors", "steps.csv", "epochs.jsonl"):
        assert (places[0] / name).read_bytes() == (places[1] / name).read_bytes(), name


def test_a_rung_is_validated_off_the_beat_too(task: TrainingTask, tmp_path: Path) -> None:
    trainings = Trainings(task, tmp_path)
    assert set(trainings.curve(finalist(task), 0)) == set()
    trainings(finalist(task), 0, 1)
    assert set(trainings.curve(finalist(task), 0)) == {1}


def test_seconds_of_an_epoch_come_from_a_few_batches(task: TrainingTask) -> None:
    assert 0 < epoch_seconds(task, [finalist(task)] * 4) < 60


def test_a_training_of_other_data_is_refused(task: TrainingTask, tmp_path: Path) -> None:
    Trainings(task, tmp_path)(finalist(task), 0, 1)
    with pytest.raises(UserError, match="training data"):
        Trainings(replace(task, train=task.train.subset(range(20))), tmp_path)(finalist(task), 0, 2)
