"""Loggers: they get the numbers, offline, no byte of a result depends on them, and mistakes are one line."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest

from nas.errors import UserError
from nas.training.hooks import read_epochs
from nas.training.loggers import LOGGERS, make_loggers
from nas.training.run import run_training


def test_unknown_and_missing_ones_are_refused_in_one_line(tiny, root, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"^loggers: there is no 'tensorbord'; known: tensorboard, wandb, mlflow$"):
        run_training(replace(tiny.tiny_task(root), loggers=("tensorbord",)), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "steps.csv").exists()
    monkeypatch.setattr("nas.training.loggers.find_spec", lambda package: None)
    for name in ("wandb", "mlflow"):
        with pytest.raises(UserError, match=rf"^loggers: {name} is not installed; pip install 'maenas\[{name}\]'$"):
            make_loggers(["tensorboard", name], 10)
    assert [type(one) for one in make_loggers(["tensorboard"] * 2, 10)] == [LOGGERS["tensorboard"][0]]


def test_no_byte_depends_on_loggers(tiny, root, tmp_path):
    for name, loggers in (("without", ()), ("with", ("tensorboard",))):
        run_training(replace(tiny.tiny_task(root), loggers=loggers), tmp_path / name, progress=False)
    for name in ("best.safetensors", "last.safetensors", "steps.csv", "epochs.jsonl"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()
    assert not (tmp_path / "without" / "tensorboard").exists()
    assert list((tmp_path / "with" / "tensorboard").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_offline_logs_change_no_byte_and_hold_the_scores(tiny, root, tmp_path, monkeypatch, name):
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed (pip install 'maenas[{name}]')")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    logged = replace(tiny.tiny_task(root), loggers=(name,))
    run_training(logged, tmp_path / "run", progress=False, until=1)
    first = (tmp_path / "run" / f"{name}.id").read_text()
    run_training(logged, tmp_path / "run", resume=True, progress=False)
    assert (tmp_path / "run" / f"{name}.id").read_text() == first
    ap = read_epochs(tmp_path / "run")[-1]["ap"]
    if name == "wandb":
        assert list((tmp_path / "run" / "wandb").glob(f"offline-run-*-{first}/run-{first}.wandb"))
    else:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
        history = client.get_metric_history(first, "val/ap")
        assert history[-1].value == pytest.approx(ap) and history[-1].step == 18
        assert client.get_run(first).info.status == "FINISHED"
    run_training(tiny.tiny_task(root), tmp_path / "halves", progress=False, until=1)
    run_training(tiny.tiny_task(root), tmp_path / "halves", resume=True, progress=False)
    for file in ("best.safetensors", "last.safetensors", "steps.csv", "epochs.jsonl"):
        assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "halves" / file).read_bytes(), file
