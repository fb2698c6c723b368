"""Hooks: they are told everything, in order, and no byte of a result depends on them."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from nas.training.hooks import Hook
from nas.training.run import run_training
from nas.training.state import read_state


class Recorder(Hook):
    """Writes down what it is told."""

    def __init__(self):
        self.told = []

    def on_train_begin(self, view):
        self.told.append(("begin", view.position.step))

    def on_epoch_begin(self, view, epoch):
        assert epoch == view.epoch + 1
        self.told.append(("epoch", epoch))

    def on_step_end(self, view, step):
        assert step.total == pytest.approx(sum(step.losses.values()))
        self.told.append(("step", step.number, step.epoch))

    def on_epoch_end(self, view, speed):
        assert speed.images_per_second > 0 and speed.memory_mb > 0
        self.told.append(("end of epoch", view.position.step))

    def on_validation(self, view, validation):
        assert validation.detector is None and validation.images and validation.curves
        self.told.append(("validation", next(iter(validation.numbers))))

    def on_checkpoint(self, view, path):
        assert path.is_file() and path.parent == view.folder
        self.told.append(("saved", path.name))

    def on_train_end(self, view, error):
        self.told.append(("ended", error))


class Meddler(Hook):
    """Reads the weights, draws random numbers, reseeds, and spoils whatever it is given."""

    def meddle(self, view, *given):
        for average in (True, False):
            for value in view.weights(average).values():
                value.zero_()
        view.position.step = view.position.best = 10**9
        for thing in given:
            for value in getattr(thing, "__dict__", {}).values():
                if isinstance(value, dict):
                    value.clear()
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        torch.rand(3)

    on_train_begin = on_epoch_begin = on_step_end = on_epoch_end = on_validation = on_checkpoint = on_train_end = meddle


def contents(folder):
    names = ("best.safetensors", "last.safetensors", "steps.csv", "epochs.jsonl")
    return {name: (folder / name).read_bytes() for name in names}


def test_hooks_are_told_everything_in_order(tiny, root, tmp_path):
    hook = Recorder()
    run_training(tiny.tiny_task(root), tmp_path / "run", progress=False, hooks=[hook])
    epochs = [[("epoch", epoch), *(("step", 6 * epoch - 5 + i, epoch) for i in range(6))] for epoch in (1, 2, 3)]
    best = [("validation", "ap"), ("saved", "best.safetensors")]
    told = [line for line in hook.told if line != ("saved", "last.safetensors")]
    again = best if len([line for line in told if line == best[1]]) == 2 else best[:1]
    expected = [("begin", 0), *epochs[0], ("end of epoch", 6), *epochs[1], ("end of epoch", 12), *best]
    assert told == [*expected, *epochs[2], ("end of epoch", 18), *again, ("ended", None)]
    assert hook.told[1] == hook.told[-2] == ("saved", "last.safetensors")


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_no_byte_depends_on_hooks(tiny, root, tmp_path, workers):
    changes = {"workers": workers, "save_steps": 4}
    run_training(tiny.tiny_task(root, changes), tmp_path / "without", progress=False)
    hooks = [Meddler(), Recorder()]
    run_training(tiny.tiny_task(root, changes), tmp_path / "with", progress=False, hooks=[hooks[0]])
    assert contents(tmp_path / "with") == contents(tmp_path / "without")
    run_training(tiny.tiny_task(root, changes), tmp_path / "recorded", progress=False, hooks=[hooks[1]])
    assert contents(tmp_path / "recorded") == contents(tmp_path / "without")


def test_weights_are_the_average_or_those_that_are_trained(tiny, root, tmp_path):
    seen = {}

    class Reader(Hook):
        def on_train_end(self, view, error):
            seen.update(average=view.weights(), trained=view.weights(average=False))

    run_training(tiny.tiny_task(root, {"epochs": 2}), tmp_path / "run", progress=False, hooks=[Reader()])
    state = read_state(tmp_path / "run")
    assert all(torch.equal(value, seen["average"][name]) for name, value in state["ema"].items())
    assert all(torch.equal(state["network"][f"detector.{name}"], value) for name, value in seen["trained"].items())


def test_a_hook_that_fails_ends_the_training_and_is_told_so(tiny, root, straight, tmp_path):
    class Failing(Hook):
        def on_step_end(self, view, step):
            if step.number == 8:
                raise RuntimeError("no more")

    hook = Recorder()
    with pytest.raises(RuntimeError, match="no more"):
        run_training(tiny.tiny_task(root), tmp_path / "run", progress=False, hooks=[hook, Failing()])
    assert isinstance(hook.told[-1][1], RuntimeError)
    resumed = run_training(tiny.tiny_task(root), tmp_path / "run", resume=True, progress=False)
    assert resumed.steps == 18 and contents(tmp_path / "run") == contents(straight)


def test_an_interrupted_run_says_where_it_stopped(tiny, root, tmp_path, capsys):
    class Stopping(Hook):
        def on_epoch_end(self, view, speed):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(tiny.tiny_task(root), tmp_path / "r", hooks=[Stopping()])
    assert "stopped after step 6\n" in capsys.readouterr().out
