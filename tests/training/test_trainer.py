"""The training loop on drawn pictures: learning, schedules, budgets, precisions, distillation."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from nas.augment.pipeline import Augmentation
from nas.data.dataset import DetectionData
from nas.errors import UserError
from nas.models.checkpoint import load_checkpoint, save_checkpoint
from nas.models.detector import build_detector
from nas.training import setup as training_setup
from nas.training.averaging import Validator
from nas.training.hooks import Validation
from nas.training.options import DistillOptions, EmaOptions
from nas.training.run import run_training
from nas.training.state import read_state
from nas.training.task import TrainingTask
from nas.training.trainer import Trainer


@pytest.mark.slow
def test_drawn_pictures_are_memorised(tiny, root, tmp_path):
    train, _ = tiny.shapes(root)
    sides = [(record.boxes[:, 2:] - record.boxes[:, :2]).min(initial=96) for record in train.records]
    few = train.subset([i for i in np.argsort(sides)[::-1] if len(train.records[i].labels) > 1][:2])
    options = tiny.options(epochs=180, batch_size=2, evaluate_every=180)
    options.optimizer.lr, options.ema.decay, options.optimizer.name = 0.004, 0.95, "adamw"
    task = TrainingTask(tiny.tiny_spec(32, 96), few, few, options, Augmentation.plain(), device="cpu")
    result = run_training(task, tmp_path / "run", progress=False)
    assert result.steps == 180 and result.epoch >= 179
    validation = json.loads((tmp_path / "run" / "epochs.jsonl").read_text().splitlines()[-1])
    assert validation["ap50"] >= 0.95


def test_logs_checkpoints_and_events(tiny, root, tmp_path):
    result = tiny.run(root, tmp_path / "run")
    rows = tiny.steps(tmp_path / "run")
    assert [int(row["step"]) for row in rows] == list(range(1, 19)) and result.steps == 18
    assert float(rows[0]["lr"]) == 0 and float(rows[-1]["lr"]) == pytest.approx(0.02 * 0.05)
    model = load_checkpoint(result.best)
    assert model.classes == ("disc", "square", "triangle", "ring", "cross") and model.image_size == 64
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    with pytest.raises(UserError, match="already holds a training"):
        tiny.run(root, tmp_path / "run")


def test_accumulation_sees_the_same_images(tiny, root, tmp_path):
    tiny.run(root, tmp_path / "one", {"epochs": 2})
    tiny.run(root, tmp_path / "two", {"epochs": 2, "accumulate": 2})
    one, two = tiny.steps(tmp_path / "one"), tiny.steps(tmp_path / "two")
    assert len(one) == len(two) == 12
    assert [row["lr"] for row in one] == [row["lr"] for row in two]
    with pytest.raises(UserError, match="must be a multiple of 3"):
        tiny.run(root, tmp_path / "three", {"accumulate": 3})


def test_a_time_budget_ends_the_schedule(tiny, root, tmp_path, monkeypatch):
    """By a clock that moves half a second a step and stands still otherwise."""
    clock, step = [100.0], Trainer._step

    def half_a_second(self, group):
        step(self, group)
        clock[0] += 0.5

    monkeypatch.setattr("nas.training.trainer.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(Trainer, "_step", half_a_second)
    result = tiny.run(root, tmp_path / "run", {"epochs": 5000, "minutes": 0.25})
    rates = [float(row["lr"]) for row in tiny.steps(tmp_path / "run")]
    assert (result.steps, result.seconds) == (30, 15.0) and tiny.steps(tmp_path / "run")[-1]["epoch"] == "5"
    assert max(rates) == rates[1] and rates == [rates[0], *sorted(rates[1:], reverse=True)]
    assert rates[15] == pytest.approx(0.02 * 0.525, rel=1e-3) and rates[-1] == pytest.approx(0.02 * 0.05, rel=0.1)


def test_patience_stops(tiny, root, tmp_path, monkeypatch):
    monkeypatch.setattr(Validator, "__call__", lambda self, detector: Validation({"ap": 0.5}))
    result = tiny.run(root, tmp_path / "run", {"epochs": 9, "patience": 2, "evaluate_every": 1})
    assert result.epoch == 1 and result.steps == 3 * 6


def test_distillation_logs_its_loss_and_trains_adapters(tiny, root, tmp_path):
    teacher = save_checkpoint(tmp_path / "teacher.safetensors", build_detector(tiny.tiny_spec(16), 5))
    tiny.run(root, tmp_path / "run", {"epochs": 2}, distill=DistillOptions(str(teacher)))
    rows = tiny.steps(tmp_path / "run")
    assert all(float(row["distill"]) > 0 for row in rows)
    state = read_state(tmp_path / "run")["network"]
    assert state["distiller.adapters.0.weight"].shape == (16, 8, 1, 1)
    tiny.run(root, tmp_path / "report", {"epochs": 2}, distill=DistillOptions(str(teacher), stop_in_tail=True))
    assert [float(row["distill"]) > 0 for row in tiny.steps(tmp_path / "report")] == [True] * 6 + [False] * 6
    with pytest.raises(UserError, match="distill.teacher must be a checkpoint"):
        tiny.run(root, tmp_path / "no", distill=DistillOptions("damo-yolo-s"))


def test_clipping_measures_the_detector_alone(tiny, root, tmp_path, monkeypatch):
    teacher = save_checkpoint(tmp_path / "teacher.safetensors", build_detector(tiny.tiny_spec(16), 5))
    clipped = []
    original = Trainer._clip_gradients

    def norm(module) -> float:
        return float(torch.stack([p.grad.norm() for p in module.parameters()]).norm())

    def watched(self):
        detector, adapters = norm(self.parts.network.detector), norm(self.parts.network.distiller)
        self.clip = 0.5 * detector
        original(self)
        clipped.append((norm(self.parts.network.detector) / detector, norm(self.parts.network.distiller) / adapters))

    monkeypatch.setattr(Trainer, "_clip_gradients", watched)
    tiny.run(root, tmp_path / "run", {"epochs": 2, "clip": 1.0}, distill=DistillOptions(str(teacher)))
    assert clipped == [(pytest.approx(0.5, rel=1e-4), pytest.approx(1.0))] * 12


def test_half_precision_is_chosen_by_the_card(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)  # as torch says of a T4: by emulation
    monkeypatch.setattr(training_setup, "Fabric", lambda **settings: chosen.append(settings["precision"]) or Mock())
    for capability in ((7, 0), (7, 5), (8, 0), (8, 9), (12, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None, c=capability: c)
        training_setup.make_fabric("cuda")
    assert chosen == ["16-mixed", "16-mixed", "bf16-mixed", "bf16-mixed", "bf16-mixed"]


def test_a_training_runs_on_the_gpu_that_is_named(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    monkeypatch.setattr(training_setup, "Fabric", lambda **settings: chosen.append(settings["devices"]) or Mock())
    for device in ("auto", "cuda", "cuda:0", "cuda:1"):
        training_setup.make_fabric(device)
    assert chosen == [1, 1, [0], [1]]
    assert training_setup.device_place("auto") == "cuda" and training_setup.device_place("cuda:1") == "cuda:1"
    with pytest.raises(UserError, match=r"^device=cuda:2: this machine has 2 GPUs, numbered from 0$"):
        training_setup.make_fabric("cuda:2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun gives each process its own"):
        training_setup.make_fabric("cuda:1")


@pytest.mark.parametrize("classes", [1, 701])
def test_any_number_of_classes_and_images_without_boxes(tiny, root, tmp_path, classes):
    train, _ = tiny.shapes(root)
    names = tuple(f"kind{i}" for i in range(classes))
    records = [
        replace(r, labels=np.zeros_like(r.labels)) if i % 3 else r.select(np.zeros(len(r.labels), bool))
        for i, r in enumerate(train.records[:8])
    ]
    data = DetectionData("one", "train", names, tuple(range(1, classes + 1)), tuple(records))
    options = tiny.options(epochs=2, batch_size=1)
    task = TrainingTask(tiny.tiny_spec(), data, data, options, Augmentation.plain(), device="cpu")
    result = run_training(task, tmp_path / "run", progress=False)
    assert result.steps == 16 and load_checkpoint(result.last).num_classes == classes


def test_a_validation_without_boxes_still_leaves_the_best(tiny, root, tmp_path):
    train, _ = tiny.shapes(root)
    empty = replace(train, records=tuple(r.select(np.zeros(len(r.labels), bool)) for r in train.records[:4]))
    options, few = tiny.options(epochs=2), train.subset(range(8))
    task = TrainingTask(tiny.tiny_spec(), few, empty, options, Augmentation.plain(), device="cpu")
    result = run_training(task, tmp_path / "run", progress=False)
    assert result.best.is_file() and result.score == -1.0


def test_unusable_settings_are_told(tiny, root, tmp_path):
    for changes, words in (
        ({"precision": "fp8"}, "trainer.precision must be one of"),
        ({"precision": "fp16"}, "needs a GPU"),
        ({"minutes": -1.0}, "trainer.minutes must be a number above 0 or null, got -1.0"),
    ):
        with pytest.raises(UserError, match=words):
            tiny.run(root, tmp_path / "run", changes, augment=False)
    with pytest.raises(UserError, match="image_size must be a positive multiple of 32"):
        tiny.run(root, tmp_path / "run", image_size=100)
    with pytest.raises(UserError, match="seed must be from 0 to 4294967295, got -1"):
        tiny.run(root, tmp_path / "run", seed=-1)


def test_a_short_training_has_all_phases(tiny, root, tmp_path):
    """One epoch of six steps with a recipe of 1 epoch of warm-up and 1 at the end: half of it is left to the phases."""
    tiny.run(root, tmp_path / "run", {"epochs": 1})
    rates = [float(row["lr"]) for row in tiny.steps(tmp_path / "run")]
    assert rates[:2] == pytest.approx([0, 0.02 * (1 / 1.5) ** 2]) and rates[5] == pytest.approx(0.001)
    assert rates[1] < rates[2] > rates[3] > rates[4] > rates[5]


def test_half_precision_on_the_cpu(tiny, root, tmp_path):
    result = tiny.run(root, tmp_path / "run", {"epochs": 2, "precision": "bf16"})
    assert result.steps == 12 and all(np.isfinite(float(row["total"])) for row in tiny.steps(tmp_path / "run"))


@pytest.mark.slow
def test_double_precision_distils_and_saves_a_float32_model(tiny, root, tmp_path):
    teacher = tiny.run(root, tmp_path / "teacher", {"epochs": 2}).last
    task = tiny.tiny_task(root, {"epochs": 2, "precision": "fp64"}, distill=DistillOptions(str(teacher)))
    task.options.ema = EmaOptions(0.9, 5.0, norm_images=4)
    result = run_training(task, tmp_path / "run", progress=False)
    state = read_state(tmp_path / "run")
    assert {value.dtype for value in state["network"].values() if value.is_floating_point()} == {torch.float64}
    assert {value.dtype for value in load_checkpoint(result.best).parameters()} == {torch.float32}


@pytest.mark.slow
def test_float32_on_the_cpu_keeps_the_plain_layout(tiny, root, tmp_path, monkeypatch):
    seen = []
    step = Trainer._step
    monkeypatch.setattr(Trainer, "_step", lambda self, group: (seen.append(self.memory_format), step(self, group)))
    for changes in ({}, {"precision": "bf16"}, {"channels_last": True}):
        tiny.run(root, tmp_path / f"run{len(seen)}", {"epochs": 2} | changes)
    formats = [torch.contiguous_format, torch.channels_last, torch.channels_last]
    assert seen == [layout for layout in formats for _ in range(12)]
