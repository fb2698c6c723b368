"""trainer.batch_size=auto is the largest power of two that memory holds, found without harm to what is trained."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

import nas.training.batch_size as module
from nas.commands.train import TrainCommand, task_of, with_batch
from nas.config import compose_config
from nas.data.shapes import draw_shapes
from nas.errors import UserError
from nas.models.detector import build_detector
from nas.training.batch_size import fitting_batch, largest
from nas.training.best import check_best
from nas.training.options import TrainerOptions


@pytest.mark.parametrize(
    ("free", "images", "expected"),
    [(1000, 999, 64), (1000, 40, 32), (1e6, 10**6, 256), (1000, 1, 1), (140, 99, 1)],
)
def test_the_line_through_two_batches_says_how_many_fit(free: float, images: int, expected: int) -> None:
    assert largest(lambda count: 100 + 10 * count, free, images) == (expected, 100, 10)


def test_what_noise_hides_is_not_nothing() -> None:
    assert largest(lambda count: 120.0, 400, 1000)[2] == 1.0


def test_not_even_one_image_is_said_in_one_line() -> None:
    with pytest.raises(
        UserError, match="^out of memory: not one image of this size fits into 130 MB; lower image_size$"
    ):
        largest(lambda count: 100 + 10 * count, 130, 99)


def test_it_is_found_by_training_a_copy(tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny.tiny_task(tmp_path, {"accumulate": 2, "batch_size": 4})
    task.model = build_detector(tiny.tiny_spec(), classes=task.train.classes)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    tried, told = [], list[str]()
    memory = module._on_cpu
    monkeypatch.setattr(module, "_on_cpu", lambda *some: tried.append(some[1]) or memory(*some))
    if module.start_peak() is None:
        pytest.skip("this system does not let a process count its peak anew")
    monkeypatch.setattr(module, "free_memory", lambda place: 1e6)
    assert fitting_batch(task, told.append) == 2 * 16  # the data has 24 pictures
    assert tried == [4, 12] and told[0].startswith("trainer.batch_size=auto: 32 (") and "2 micro-batches" in told[0]
    for name, value in task.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_what_a_whole_training_is_told_does_not_stand_in_the_way(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a figure that only validations give nor repeated images."""
    tried = []
    monkeypatch.setattr(module, "run_training", lambda task, *_, **__: tried.append(task))
    module._steps(tiny.tiny_task(tmp_path, {"best": "loss", "repeat_threshold": 0.5}), 4)
    (task,) = tried
    assert (task.options.best, task.options.repeat_threshold, len(task.train)) == ("ap", 0.0, 4 * module.STEPS)
    check_best(task.options, task.val)


def test_under_torchrun_the_number_is_asked_for(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="under torchrun give the number"):
        fitting_batch(tiny.tiny_task(tmp_path))


def test_the_command_keeps_the_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = draw_shapes(tmp_path / "shapes", counts={"train": 4, "val": 2}, size=64)
    given = {"data": "shapes", "data.root": str(root), "trainer.batch_size": "auto", "test": False}
    config = compose_config("train", TrainCommand, given)
    task = task_of(config)[0]
    with pytest.raises(UserError, match="batch_size=auto is for nas.train and Detector.train"):
        task.options.local_batch(1)
    monkeypatch.setattr(module, "fitting_batch", lambda task: 8)
    assert with_batch(config, task).trainer.batch_size == task.options.step_images == 8
    assert with_batch(compose_config("train", TrainCommand, {}), task).trainer.batch_size == 256


@pytest.mark.parametrize("wrong", ["big", 0, 1.5, True, None])
def test_only_auto_and_numbers_are_batches(wrong: object) -> None:
    with pytest.raises(UserError, match="batch_size"):
        TrainerOptions(batch_size=wrong).checked()  # type: ignore[arg-type]
