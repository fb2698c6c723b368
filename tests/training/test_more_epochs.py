"""Going on to more epochs: exact as any continuation, on the schedule of the new number."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nas.commands.train import FREE, FURTHER, TrainCommand, further
from nas.errors import UserError
from nas.resume import continued, store_settings
from nas.training.optimizer import Schedule
from nas.training.options import ScheduleOptions, TrainerOptions
from nas.training.run import run_training
from nas.training.state import read_state


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny) -> Path:
    """A folder with drawn data and a finished training of two epochs."""
    root = tmp_path_factory.mktemp("more")
    tiny.run(root / "shapes", root / "two", {"epochs": 2})
    return root


def go_on(tiny, root: Path, folder: Path, **settings):
    changes = settings.pop("changes", {"epochs": 4})
    return run_training(tiny.tiny_task(root / "shapes", changes), folder, True, False, **settings)


def test_it_goes_on_by_the_longer_schedule_and_exactly(finished, tiny, tmp_path):
    for name in ("straight", "paused"):
        shutil.copytree(finished / "two", tmp_path / name)
    assert go_on(tiny, finished, tmp_path / "straight").steps == 24
    assert go_on(tiny, finished, tmp_path / "paused", until=3).steps == 18
    assert go_on(tiny, finished, tmp_path / "paused").steps == 24  # the number of epochs is that of the state now
    for file in ("steps.csv", "epochs.jsonl", "last.safetensors", "best.safetensors"):
        assert (tmp_path / "straight" / file).read_bytes() == (tmp_path / "paused" / file).read_bytes(), file
    rows, before = tiny.steps(tmp_path / "straight"), tiny.steps(finished / "two")
    assert rows[:12] == before and [row["epoch"] for row in rows[12:]] == ["3"] * 6 + ["4"] * 6
    schedule = Schedule(0.02, 24, 6, 6, 0.9, ScheduleOptions())
    expected = [schedule.learning_rate(step) for step in range(12, 24)]
    assert [float(row["lr"]) for row in rows[12:]] == expected and float(before[-1]["lr"]) < expected[0]
    loader = read_state(tmp_path / "straight")["loader"]
    assert (loader["epoch"], loader["total_epochs"], loader["closing_epochs"]) == (4, 4, 1)


def test_fewer_epochs_and_other_recipes_are_refused(finished, tiny):
    folder = finished / "two"
    with pytest.raises(UserError, match="^this is a training of 2 epochs: it can go on to more, not to 1$"):
        go_on(tiny, finished, folder, changes={"epochs": 1})
    with pytest.raises(UserError, match="cannot resume: batch_size was 4 and is 2 now"):
        go_on(tiny, finished, folder, changes={"epochs": 4, "batch_size": 2})
    with pytest.raises(UserError, match="cannot resume: recipe was"):
        go_on(tiny, finished, folder, changes={"epochs": 4, "clip": 1.0})
    with pytest.raises(UserError, match="trainer.minutes ends this training by the clock"):
        go_on(tiny, finished, folder, changes={"epochs": 4, "minutes": 1.0})


def test_the_command_takes_more_epochs_beside_what_is_free(tmp_path):
    kept = TrainCommand(trainer=TrainerOptions(epochs=3, batch_size=4, workers=2))
    store_settings(kept, tmp_path, FREE)
    given = ("trainer.epochs=5", "trainer.workers=0", "trainer.threads=1")
    asked = TrainCommand(trainer=TrainerOptions(epochs=5, workers=0, threads=1), resume=str(tmp_path))
    command = continued(asked, given, FREE, FURTHER)
    assert (command.trainer.epochs, command.trainer.workers, command.trainer.threads) == (5, 0, 1)
    assert command.trainer.batch_size == 4
    stored = further(command, tmp_path)
    assert stored is not None and (stored.trainer.epochs, stored.trainer.workers) == (5, 2)
    store_settings(stored, tmp_path, FREE)
    assert further(command, tmp_path) is None
    with pytest.raises(UserError, match="is a training of 5 epochs: it can go on to more, not to 3"):
        further(kept, tmp_path)
    with pytest.raises(UserError, match="take away trainer.batch_size"):
        continued(asked, ("trainer.batch_size=8",), FREE, FURTHER)
