"""python -m nas.select as a user meets it: from a budget and data to an exported detector, however often it is interrupted."""

from __future__ import annotations

import csv
import json
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from hydra.core.global_hydra import GlobalHydra

import nas
from nas.files import load_spec

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "+budget.mine.params_m=1.5", "neck=nano", "image_size=64", "candidates=4", "epochs=3", "evaluations=100",
    "trainer.batch_size=8", "trainer.workers=0", "trainer.evaluate_every=1", "device=cpu", "progress=false",
)  # fmt: skip
SAME = ("selection.csv", "selected.yaml", "selected.safetensors", "finalists.json", "plan.json")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "nas.select", *arguments]


def require_same_bytes(folder: Path, finished: Path) -> None:
    for name in SAME:
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name


def select(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A few drawn pictures, as `data=custom` reads them."""
    from nas.data.shapes import draw_shapes

    root = tmp_path_factory.mktemp("data")
    draw_shapes(root, counts={"train": 16, "val": 6, "test": 6}, size=64)
    return ["data=shapes", f"data.root={root}"]


@pytest.fixture(scope="module")
def finished(data: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("select") / "run"
    result = select(*SMALL, *data, f"hydra.run.dir={folder}")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.slow
def test_it_ends_with_a_trained_and_exported_detector(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {*SAME, "selected.onnx", "summary.json", "report.html", "config.yaml", "study.db"} <= names
    rows = list(csv.DictReader((finished / "selection.csv").open()))
    assert len(rows) == 4 and {row["origin"] for row in rows} == {"searched", "drawn"}
    assert all(1.5 * 0.97 <= float(row["params_m"]) <= 1.5 for row in rows)
    spec = load_spec(finished / "selected.yaml")
    assert nas.count(spec).layers == int(float(rows[0]["layers"]))
    known = json.loads((finished / "summary.json").read_text())
    assert known["winner"] == rows[0]["name"] and known["val_ap"] >= known["drawn_val_ap"]
    assert known["trained_epochs"] < known["exhaustive_epochs"]
    assert known["starts"] == len(list((finished / "starts").iterdir())) == 1
    assert 0 < known["cpu_seconds"] and 0 < known["seconds"]
    assert (
        nas.Detector.load(finished / "selected.safetensors").classes
        == nas.Detector.load(finished / "selected.onnx").classes
    )
    page = (finished / "report.html").read_text()
    assert all(row["name"] in page for row in rows) and "<script src=" not in page
    # Three epochs on sixteen pictures teach nothing, and the verdict says so.
    assert known["val_ap"] < 0.05 and "No network has learned these data yet (AP below 5)" in page


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_to_the_same_bytes(finished: Path, data: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    line = command(*SMALL, *data, f"hydra.run.dir={folder}")
    for number in range(2):
        process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        marks = [
            folder / "finalists.json",
            next(iter(sorted(folder.glob("candidates/*/epochs.jsonl"))), folder / "study.db"),
        ]
        while process.poll() is None and not marks[number].exists():
            time.sleep(0.05)
        time.sleep(0.7 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        line = command(f"resume={folder}", "progress=false")
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    require_same_bytes(folder, finished)
    assert json.loads((folder / "summary.json").read_text())["starts"] == 3


@pytest.mark.benchmark
def test_ten_random_kills_change_no_byte(finished: Path, data: list[str], tmp_path: Path) -> None:
    folder, rng = tmp_path / "run", Random(0)
    line, kills = command(*SMALL, *data, f"hydra.run.dir={folder}"), 0
    while kills < 10:
        process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(4, 14))  # from before the first file to the middle of a later training
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        elif (folder / "summary.json").exists():  # it ended before all kills: once more from the beginning
            shutil.rmtree(folder)
        process.wait()
        begun = (folder / "config.yaml").exists()
        line = (
            command(f"resume={folder}", "progress=false")
            if begun
            else command(*SMALL, *data, f"hydra.run.dir={folder}")
        )
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    require_same_bytes(folder, finished)


@pytest.mark.benchmark
def test_of_two_processes_on_one_storage_one_may_die(finished: Path, data: list[str], tmp_path: Path) -> None:
    """Nothing is lost or done twice: every task of every rung ended once, every epoch of every training is there once."""
    folder = tmp_path / "run"
    own = ("lease=5", f"storage=sqlite:///{tmp_path / 'shared.db'}")
    first = subprocess.Popen(
        command(*SMALL, *data, *own, f"hydra.run.dir={folder}"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    while not (folder / "plan.json").exists():
        time.sleep(0.1)
    second = subprocess.Popen(
        command(f"resume={folder}", *own, "progress=false"),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(list(folder.glob("candidates/*/epochs.jsonl"))) < 2:  # both have begun
        time.sleep(0.1)
    second.send_signal(signal.SIGKILL)
    assert first.wait(600) == 0, first.stdout and first.stdout.read()
    second.wait()
    require_same_bytes(folder, finished)
    import optuna

    for summary in optuna.get_all_study_summaries(f"sqlite:///{tmp_path / 'shared.db'}"):
        study = optuna.load_study(study_name=summary.study_name, storage=f"sqlite:///{tmp_path / 'shared.db'}")
        done = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
        told = {(trial.user_attrs["digest"], trial.user_attrs["seed"]) for trial in done}
        assert done and len(told) == len(done), summary.study_name
    for path in folder.glob("candidates/*/epochs.jsonl"):
        epochs = [json.loads(row)["epoch"] for row in path.read_text().splitlines()]
        assert epochs == list(range(1, len(epochs) + 1))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no budget: add +budget="),
        (("+budget.mine.latency_ms=2",), "say how long to train"),
        (("+budget.mine.latency_ms=2", "epochs=3", "minutes=5"), "say how long to train"),
        (("+budget.mine.latency_ms=2", "epochs=3", "candidates=1"), "candidates must be"),
        (("+budget.mine.latency_ms=2", "epochs=3", "factor=1"), "factor must be"),
        (("+budget.mine.latency_ms=2", "epochs=-3"), "epochs must be"),
        (("+budget.mine.latency_ms=2", "epochs=3", "storage=5"), "storage '5'"),
        (("+budget.mine.latency_ms=2", "epochs=3", "hardware=abacus"), "abacus"),
        (("resume=/nowhere",), "nothing to resume in /nowhere"),
        (("resume=/nowhere", "epochs=3"), "take away epochs"),
    ],
)
def test_errors_are_one_clear_line(
    arguments: tuple[str, ...], said: str, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = () if any("resume" in text for text in arguments) else (*data, f"hydra.run.dir={tmp_path}/run")
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["nas.select", *arguments, *own])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("nas.select", run_name="__main__")
    line = ended.value.code
    assert isinstance(line, str) and said in line and "\n" not in line


@pytest.mark.slow
def test_an_error_ends_the_process_with_one_line_and_status_1() -> None:
    result = select("resume=/nowhere")
    assert result.returncode == 1 and "nothing to resume in /nowhere" in result.stderr.splitlines()[-1], result.stderr
    assert "Traceback" not in result.stderr
