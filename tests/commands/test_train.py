"""python -m nas.train and nas.commands.train.train: recipes compose, runs resume, mistakes are one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra

from nas.commands.train import TrainCommand, train
from nas.config import compose_config
from nas.data.shapes import draw_shapes
from nas.errors import UserError
from nas.files import config_folder, save_spec
from nas.spec import Backbone, DetectorSpec, HeadSpec, NeckSpec, Residual, Stem
from nas.train import main

CONF = Path(config_folder())


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The file of a tiny detector."""
    blocks = tuple(Residual("k1kx", out=out, bottleneck=8, depth=1, stride=2) for out in (8, 16, 16, 24))
    backbone = Backbone(Stem("focus", 8), blocks, (1, 2, 3))
    spec = DetectorSpec(backbone, NeckSpec((8, 8, 8), depth=1), HeadSpec(5, reg_max=7), 64)
    return save_spec(tmp_path_factory.mktemp("model") / "best.yaml", spec)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A working folder with a few drawn shapes."""
    folder = tmp_path_factory.mktemp("home")
    draw_shapes(folder / "shapes", counts={"train": 32, "val": 8, "test": 8}, size=96)
    return folder


SHORT = {"trainer": "cpu_small", "trainer.epochs": 2, "trainer.schedule.warmup_epochs": 1, "augmentation": "light"} | {
    "augmentation.closing_epochs": 1,
    "trainer.workers": 0,
    "trainer.batch_size": 16,
    "progress": False,
}


@pytest.mark.parametrize("group", ["trainer", "augmentation", "distill"])
def test_every_recipe_composes(group):
    for path in sorted((CONF / group).glob("*.yaml")):
        config = compose_config("train", TrainCommand, {group: path.stem})
        config.trainer.checked()
        config.augmentation.checked()


def test_official_recipe_is_the_default():
    config = compose_config("train", TrainCommand, {})
    trainer = config.trainer
    assert trainer.optimizer.peak_rate(trainer.batch_size) == pytest.approx(0.04)
    assert (trainer.epochs, trainer.ema.decay, config.augmentation.closing_epochs) == (300, 0.9998, 16)
    assert (trainer.loss.class_weight, trainer.loss.box_weight, trainer.loss.dfl_weight) == (1.0, 2.0, 0.25)
    yolo = compose_config("train", TrainCommand, {"trainer": "yolo"}).trainer
    assert (yolo.loss.assigner, yolo.optimizer.momentum, yolo.clip) == ("tal", 0.937, 10.0)


def test_a_misspelt_key_is_an_error():
    with pytest.raises(UserError, match="epoch"):
        compose_config("train", TrainCommand, {"trainer.epoch": 3})


def test_train_from_python(model, home, monkeypatch, capsys):
    monkeypatch.setenv("MAENAS_SHAPES", str(home / "shapes"))
    result = train(model, "shapes", home / "python", **SHORT)
    assert result.steps == 4 and result.best.is_file()
    scores = json.loads((home / "python" / "test.json").read_text())
    assert scores["images"] == 8 and set(scores["per_class"]) == {"disc", "square", "triangle", "ring", "cross"}
    assert "test AP" in capsys.readouterr().out


def test_the_final_test_runs_where_the_training_ran(model, home, monkeypatch):
    monkeypatch.setenv("MAENAS_SHAPES", str(home / "shapes"))
    kinds, seen = iter(["cpu", "meta"]), []  # the training's processes ask first, then the test

    def watched(network, data, size):
        seen.append({parameter.device.type for parameter in network.parameters()})
        raise UserError("seen")

    monkeypatch.setattr("nas.training.setup.device_place", lambda device: next(kinds))
    monkeypatch.setattr("nas.inference.evaluator.evaluate", watched)
    with pytest.raises(UserError, match="seen"):
        train(model, "shapes", home / "device", **SHORT)
    assert seen == [{"meta"}]


def command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(CONF.parent),
        "MAENAS_SHAPES": str(home / "shapes"),
    }
    line = [sys.executable, "-m", "nas.train", *arguments]
    return subprocess.run(line, cwd=home, env=environment, capture_output=True, text=True)


def error_of(monkeypatch, home, *arguments) -> str:
    """How the command ends in this process: its error, or nothing."""
    GlobalHydra.instance().clear()
    monkeypatch.chdir(home)
    monkeypatch.setenv("MAENAS_SHAPES", str(home / "shapes"))
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    try:
        main()
    except SystemExit as ended:
        return str(ended.code or "")
    return ""


@pytest.mark.slow
def test_command_line_resume_and_refusals(model, home, monkeypatch, capsys):
    options = [f"{key}={value}" for key, value in SHORT.items()]
    done = command(home, f"model={model}", "data=shapes", "hydra.run.dir=run", *options)
    assert done.returncode == 0, done.stderr
    assert (home / "run" / "best.safetensors").is_file() and "4 steps" in done.stdout
    assert not error_of(monkeypatch, home, "resume=run", "progress=false") and "4 steps" in capsys.readouterr().out
    freely = ("resume=run", "progress=false", "trainer.workers=1", "++trainer.save_steps=3", "device=cpu")
    assert not error_of(monkeypatch, home, *freely) and "4 steps" in capsys.readouterr().out
    refused = error_of(monkeypatch, home, "resume=run", "seed=3")
    assert refused == "error: resume=run goes on with its own settings; take away seed=3"
    other = error_of(monkeypatch, home, "resume=run", "trainer.workers=1", "trainer.accumulate=2")
    assert other == "error: resume=run goes on with its own settings; take away trainer.accumulate=2"
    further = ("resume=run", "progress=false", "report=false", "trainer.epochs=3")
    assert not error_of(monkeypatch, home, *further) and "6 steps" in capsys.readouterr().out
    assert yaml.safe_load((home / "run" / "config.yaml").read_text())["trainer"]["epochs"] == 3
    fewer = error_of(monkeypatch, home, "resume=run", "trainer.epochs=2")
    assert fewer == "error: run is a training of 3 epochs: it can go on to more, not to 2"


def test_a_mistyped_resume_creates_nothing(home, monkeypatch):
    before = sorted(home.rglob("*"))
    refused = error_of(monkeypatch, home, "resume=nowhere/run")
    assert sorted(home.rglob("*")) == before
    assert refused == (
        "error: nothing to resume in nowhere/run: there is no config.yaml; give the folder of an interrupted run"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b", "config.yaml must be a mapping with model, "),
        ("trainer: {epochs: many}", "trainer.epochs"),
        ("trainer: 3", "config.yaml: trainer must be"),
        ("tariner: {}", "tariner"),
        ("model: [", "not valid YAML"),
        ("seed: ${nowhere}", "seed must be a whole number"),
    ],
)
def test_an_edited_config_is_refused_in_one_line(home, text, message, monkeypatch):
    folder = home / "edited"
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(text)
    told = error_of(monkeypatch, home, "resume=edited")
    assert message in told and "\n" not in told
