"""Killed and resumed equals never interrupted, bit by bit; two processes equal one."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.errors import UserError
from nas.training.run import run_training
from nas.training.state import read_state

SCRIPT = Path(__file__).with_name("tiny_training.py")
REPOSITORY = SCRIPT.parents[2]


def start(folder: Path, settings: dict, kill: int | None = None, processes: int = 1) -> int:
    """Run the script in processes of its own; the exit status."""
    command = [sys.executable, str(SCRIPT)]
    if processes > 1:
        port = ["--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, "-m", "torch.distributed.run", *port, str(SCRIPT)]
    command += [str(folder), json.dumps(settings)] + ([str(kill)] if kill else [])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    print(done.stderr[-3000:])  # shown by pytest when a test fails
    return done.returncode


def assert_same_run(one: Path, two: Path) -> None:
    a, b = read_state(one), read_state(two)
    for part in ("network", "ema"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part]), part
    assert a["loader"] == b["loader"] and a["position"]["step"] == b["position"]["step"]
    for log in ("steps.csv", "epochs.jsonl"):
        assert (one / log).read_bytes() == (two / log).read_bytes(), log
    for model in ("best", "last"):
        assert (one / f"{model}.safetensors").read_bytes() == (two / f"{model}.safetensors").read_bytes(), model


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny) -> Path:
    """A folder with the drawn data and a training in one process that was never interrupted."""
    root = tmp_path_factory.mktemp("runs")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tiny.train_tiny(root / "straight1", root=root / "shapes")
    torch.set_num_threads(threads)
    return root


@pytest.fixture(scope="module")
def pair(runs) -> Path:
    """The same folder, and in it the same training in two processes."""
    assert start(runs / "straight2", {"root": str(runs / "shapes")}, processes=2) == 0
    return runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "processes"),
    [(1, 1), (2, 1), (1, 2), pytest.param(2, 2, marks=pytest.mark.benchmark)],
)
def test_killed_and_resumed_equals_straight(pair, tmp_path, workers, processes):
    changes = {"workers": workers, "save_steps": 4, "save_seconds": 0.0}
    settings = {"root": str(pair / "shapes"), "changes": changes}
    assert start(tmp_path / "run", settings, kill=11, processes=processes) != 0
    assert read_state(tmp_path / "run")["position"]["step"] == 8
    assert start(tmp_path / "run", settings | {"resume": True}, processes=processes) == 0
    assert_same_run(pair / f"straight{processes}", tmp_path / "run")


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(pair):
    rows = [list(csv.DictReader((pair / name / "steps.csv").open())) for name in ("straight1", "straight2")]
    assert len(rows[0]) == len(rows[1]) == 18
    for one, two in list(zip(*rows, strict=True))[:2]:  # of the same weights: later a rounding may hand on a prior
        for term in ("class", "box", "dfl"):
            assert float(one[term]) == pytest.approx(float(two[term]), rel=1e-4, abs=1e-4)


@pytest.mark.slow
def test_in_double_precision_two_processes_are_one_all_along(runs, tiny, tmp_path):
    settings = {"root": str(runs / "shapes"), "changes": {"precision": "fp64"}}
    assert start(tmp_path / "one", settings) == 0
    assert start(tmp_path / "two", settings, processes=2) == 0
    rows = [list(csv.DictReader((tmp_path / name / "steps.csv").open())) for name in ("one", "two")]
    assert len(rows[0]) == len(rows[1]) == 18
    for one, two in zip(*rows, strict=True):
        for term in ("class", "box", "dfl"):
            assert float(one[term]) == pytest.approx(float(two[term]), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [{}, {"assigner": "tal", "classification": "bce", "scale_by_batch": True}])
def test_micro_batches_and_processes_share_one_gradient(runs, tiny, tmp_path, recipe):
    """One picture over and over: every micro-batch has the same loss, so any way to cut a step must train alike.

    With six pictures of two steps an epoch the second step is cut into fewer micro-batches than the first.
    """
    root = str(runs / "shapes")

    def settings(accumulate: int) -> dict:
        changes = {"epochs": 4, "precision": "fp64", "accumulate": accumulate}
        return {"root": root, "copies": 6, "loss": recipe, "changes": changes}

    for accumulate in (1, 2, 4):
        tiny.train_tiny(tmp_path / f"1x{accumulate}", **settings(accumulate) | {"root": runs / "shapes"})
    assert start(tmp_path / "2x1", settings(1), processes=2) == 0
    assert start(tmp_path / "2x2", settings(2), processes=2) == 0
    rows = {path.name: list(csv.DictReader((path / "steps.csv").open())) for path in tmp_path.iterdir()}
    whole = [float(row["total"]) for row in rows.pop("1x1")]
    assert len(whole) == 8 and abs(whole[-1] / whole[0] - 1) > 0.02
    assert len(rows) == 4
    for name, cut in rows.items():
        assert [float(row["total"]) for row in cut] == pytest.approx(whole, rel=1e-6), name


def change_label(data):
    return replace(data.records[0], labels=(data.records[0].labels + 1) % 5)


def change_box(data):
    return replace(data.records[0], boxes=data.records[0].boxes + 1)


def change_crowd(data):
    crowd = np.ones((1, 4), np.float32), np.zeros(1, np.int64), np.ones(1)
    return replace(data.records[0], crowd_boxes=crowd[0], crowd_labels=crowd[1], crowd_areas=crowd[2])


@pytest.mark.parametrize("change", [change_label, change_box, change_crowd])
@pytest.mark.parametrize(("split", "name"), [("train", "training data"), ("val", "validation data")])
def test_data_that_changed_under_an_interrupted_run_is_refused(runs, tiny, change, split, name):
    task = tiny.tiny_task(runs / "shapes")
    data = getattr(task, split)
    setattr(task, split, replace(data, records=(change(data), *data.records[1:])))
    with pytest.raises(UserError, match=f"cannot resume: {name} was '.{{16}}' and is"):
        run_training(task, runs / "straight1", resume=True, progress=False)


def test_the_digest_of_data_does_not_see_where_it_lies(tiny, tmp_path):
    digests = [[data.digest() for data in tiny.shapes(tmp_path / name)] for name in ("here", "there")]
    assert digests[0] == digests[1] and len(set(digests[0])) == 2
    data, _ = tiny.shapes(tmp_path / "here")
    picture = data.records[3].path
    picture.write_bytes(picture.read_bytes() + b"more")
    assert data.digest() != digests[0][0]


def test_what_cannot_be_resumed_is_told(tmp_path):
    with pytest.raises(UserError, match="nothing to resume"):
        read_state(tmp_path)
    (tmp_path / "last.state").write_bytes(b"not a state")
    with pytest.raises(UserError, match="damaged"):
        read_state(tmp_path)


def test_resuming_another_training_is_refused(tiny, root, tmp_path):
    tiny.run(root, tmp_path / "run", {"epochs": 2})
    with pytest.raises(UserError, match="^this is a training of 2 epochs: it can go on to more, not to 1$"):
        run_training(tiny.tiny_task(root, {"epochs": 1}), tmp_path / "run", resume=True, progress=False)
    changed = tiny.tiny_task(root, {"epochs": 2})
    changed.options.optimizer.lr *= 2
    with pytest.raises(UserError, match="cannot resume: recipe was"):
        run_training(changed, tmp_path / "run", resume=True, progress=False)
    wider = replace(tiny.tiny_task(root, {"epochs": 2}), model=tiny.tiny_spec(32))
    with pytest.raises(UserError, match="cannot resume: recipe was"):
        run_training(wider, tmp_path / "run", resume=True, progress=False)
    machine = tiny.tiny_task(root, {"epochs": 2})
    machine.options.save_seconds, machine.options.log_steps = 1.0, 7
    assert run_training(machine, tmp_path / "run", resume=True, progress=False).steps > 0


EVERY_STEP = {"epochs": 2, "save_steps": 1, "evaluate_every": 1}


@pytest.fixture(scope="module")
def saved_often(tiny, root, tmp_path_factory) -> Path:
    """The folder of a training that saved its state after every step, and that nothing interrupted."""
    folder = tmp_path_factory.mktemp("often")
    tiny.run(root, folder / "run", EVERY_STEP)
    return folder / "run"


@pytest.mark.parametrize("at", ["best", pytest.param("epoch", marks=pytest.mark.slow)])
def test_killed_between_a_validation_and_its_state_no_row_is_there_twice(
    tiny, root, saved_often, tmp_path, monkeypatch, at
):
    """Stopped where the row is written and the state is not, or at an epoch's last batch of a saved last step."""
    from nas.training.trainer import Trainer

    write, run_epoch = Trainer._write_model, Trainer._run_epoch

    def stops_at_best(self, name, *rest):
        if name == "best":
            raise UserError("stopped")
        write(self, name, *rest)

    def stops_after_epoch(self, interrupt):
        run_epoch(self, interrupt)
        if self._epoch == 2:
            raise UserError("stopped")
        return False

    with monkeypatch.context() as patch:
        patch.setattr(
            Trainer, *{"best": ("_write_model", stops_at_best), "epoch": ("_run_epoch", stops_after_epoch)}[at]
        )
        with pytest.raises(UserError, match="stopped"):
            tiny.run(root, tmp_path / "run", EVERY_STEP)
    run_training(tiny.tiny_task(root, EVERY_STEP), tmp_path / "run", resume=True, progress=False)
    assert_same_run(saved_often, tmp_path / "run")
