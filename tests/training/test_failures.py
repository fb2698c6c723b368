"""What can go wrong in a training leaves one line and the last good state: broken losses, disks, signals, memory."""

from __future__ import annotations

import os
import signal
from unittest.mock import Mock

import pytest
import torch

from nas.errors import UserError
from nas.models.checkpoint import load_checkpoint
from nas.training.averaging import Validator
from nas.training.guards import LossGuard
from nas.training.run import run_training
from nas.training.state import read_state
from nas.training.trainer import Trainer


def test_a_broken_loss_names_term_and_images(tiny, root, tmp_path):
    guard = LossGuard(lambda *row: None)
    with pytest.raises(UserError, match=r"loss box is not finite at step 7, images a.jpg, b.jpg; .* intact"):
        guard.add(7, 0.1, {"class": torch.tensor(1.0), "box": torch.tensor(float("nan"))}, ["a.jpg", "b.jpg"])
    task = tiny.tiny_task(root)
    task.options.optimizer.lr = 1e12
    with pytest.raises(UserError, match=r"is not finite at step \d+, images .*\.jpg"):
        run_training(task, tmp_path / "run", progress=False)
    assert read_state(tmp_path / "run")["position"]["step"] == 0


def test_a_full_disk_keeps_the_last_good_checkpoint(tiny, root, tmp_path, monkeypatch):
    import nas.files

    replaced, calls = os.replace, []

    def full(source, target):
        calls.append(str(target))
        if sum(name.endswith("last.state") for name in calls) == 3:
            raise OSError(28, "No space left on device")
        replaced(source, target)

    monkeypatch.setattr(nas.files.os, "replace", full)
    with pytest.raises(UserError, match="checkpoint not saved, the previous one is kept: .*No space left"):
        tiny.run(root, tmp_path / "run", {"save_steps": 2})
    monkeypatch.undo()
    assert read_state(tmp_path / "run")["position"]["step"] == 2
    assert load_checkpoint(tmp_path / "run" / "last.safetensors").num_classes == 5
    assert not [name for name in os.listdir(tmp_path / "run") if name.startswith(".last")]


@pytest.mark.parametrize("where", ["step", "validation"])
def test_ctrl_c_saves_and_the_run_goes_on(tiny, root, straight, tmp_path, monkeypatch, where):
    add, validate = LossGuard.add, Validator.__call__

    def interrupted_step(self, step, *rest):
        add(self, step, *rest)
        if where == "step" and step == 8:
            os.kill(os.getpid(), signal.SIGINT)

    def interrupted_validation(self, detector):
        if where == "validation":
            os.kill(os.getpid(), signal.SIGINT)
        return validate(self, detector)

    with monkeypatch.context() as patch:
        patch.setattr(LossGuard, "add", interrupted_step)
        patch.setattr(Validator, "__call__", interrupted_validation)
        with pytest.raises(KeyboardInterrupt):
            tiny.run(root, tmp_path / "run")
    assert read_state(tmp_path / "run")["position"]["step"] == {"step": 8, "validation": 12}[where]
    run_training(tiny.tiny_task(root), tmp_path / "run", resume=True, progress=False)
    for log in ("steps.csv", "epochs.jsonl"):
        assert (tmp_path / "run" / log).read_bytes() == (straight / log).read_bytes()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
            "out of memory on the GPU: lower trainer",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "out of memory on the GPU: lower trainer"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of memory: lower trainer"),
        (MemoryError(), "out of memory: lower trainer.batch_size or image_size"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "prepares batches was killed"),
        (RuntimeError("unable to allocate shared memory(shm) for file"), "out of shared memory: lower"),
    ],
)
def test_memory_that_runs_out_is_one_line(tiny, root, tmp_path, monkeypatch, error, line):
    def full(self):
        raise error

    monkeypatch.setattr(Trainer, "fit", full)
    with pytest.raises(UserError, match=line) as told:
        tiny.run(root, tmp_path / "run")
    assert "\n" not in str(told.value) and "resume" in str(told.value)


def test_other_errors_stay_what_they_are(tiny, root, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "fit", Mock(side_effect=RuntimeError("sizes do not match")))
    with pytest.raises(RuntimeError, match="sizes do not match"):
        tiny.run(root, tmp_path / "run")
