"""A day on the GPU: commands that compose, steps in order within the time, finished ones once, and a report."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import experiments.gpu_day.__main__ as day
import experiments.gpu_day.steps as steps_module
from experiments.gpu_day.steps import Step, chosen, steps
from nas.command_line import groups, settings
from nas.commands.benchmark import BenchmarkCommand
from nas.commands.train import TrainCommand
from nas.config import compose_config
from nas.errors import UserError
from nas.measure.profiler import ProfileSettings

SCHEMAS = {"nas.train": TrainCommand, "nas.benchmark": BenchmarkCommand, "nas.profile": ProfileSettings}


def step(name: str, code: str, **more: object) -> Step:
    """A step that runs Python code from a module beside it."""
    return Step(name, f"does {name}", 1.0, "timeit", ("-n1", "-r1", code), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("dry", [False, True])
def test_every_command_composes(dry: bool, tmp_path: Path) -> None:
    for one in steps("shapes"):
        module, *words = one.command(tmp_path, 3.0, dry)
        assert not any("{" in word for word in words), words
        if module not in SCHEMAS:
            continue
        name = module.removeprefix("nas.")
        given = {}
        for word in words:
            key, _, value = word.partition("=")
            if not key.startswith("hydra."):
                assert key.partition(".")[0] in groups(name) or key in settings(name), word
                given[key] = json.loads(value) if value[:1].isdigit() or value in ("true", "false", "null") else value
                if value.startswith("["):
                    given[key] = value.strip("[]").split(",")
        command = compose_config(name, SCHEMAS[module], given)
        assert getattr(command, "device", None) in ((None, "cpu") if dry else (None, "cuda"))


def test_steps_are_chosen_by_name_in_their_order() -> None:
    assert [one.name for one in chosen((), "bccd")][:2] == ["train", "benchmark"]
    assert [one.name for one in chosen(("rows", "train"), "bccd")] == ["train", "rows"]
    with pytest.raises(UserError, match="there is no step 'trian'; there are train, benchmark"):
        chosen(("trian",), "bccd")
    assert sum(one.minutes for one in steps("bccd")) <= 25


def test_a_run_that_was_cut_goes_on_in_its_folder(tmp_path: Path) -> None:
    train = chosen(("train",), "shapes")[0]
    assert f"hydra.run.dir={tmp_path}/train" in train.command(tmp_path, 3, False)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "config.yaml").write_text("")
    assert train.command(tmp_path, 3, False) == ["nas.train", f"resume={tmp_path}/train"]
    rows = chosen(("rows",), "shapes")[0]
    assert rows.command(tmp_path, 7.25, False)[-1] == "minutes=7.2"


def test_finished_steps_are_not_repeated_and_failures_are_told(tmp_path: Path) -> None:
    mark = tmp_path / "count"
    code = f"open({str(mark)!r}, 'a').write('x')"
    told = step("good", code, read=lambda place: [f"{len(mark.read_text())} times"])
    bad = step("bad", "raise ValueError('odd')")
    later = step("later", "pass", needs="bad/file")
    long = replace(step("long", "pass"), minutes=60.0)
    plan = [told, bad, later, long]
    found = day.work(plan, tmp_path, 600, False)
    assert [outcome.state for outcome in found] == ["done", "failed", "left", "left"]
    assert found[0].told == ("1 times",) and found[1].told == ("ValueError: odd",)
    assert found[2].told == ("it needs bad/file of an earlier step",) and "60 minutes are reckoned" in found[3].told[0]
    again = day.work([told, replace(bad, words=("-n1", "-r1", "pass"))], tmp_path, 600, False)
    assert [outcome.state for outcome in again] == ["done", "done"] and mark.read_text() == "x"
    report = day.write_report(tmp_path, plan, found, dry=True).read_text()
    assert "A dry run on the CPU" in report and "ValueError: odd" in report and "1 of 4 steps are done" in report
    assert [one["state"] for one in json.loads((tmp_path / "gpu_day.json").read_text())["steps"]][:2] == [
        "done",
        "failed",
    ]


def test_a_step_is_cut_when_the_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day, "GRACE", 600.0)  # nothing has to be killed
    sleeps = step("sleeps", "import time; time.sleep(60); print('to the end')")
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a shell's background
    try:
        assert day.take(sleeps, tmp_path, 0.5, True).state == "cut"
        assert day.take(replace(sleeps, elastic=True), tmp_path, 0.5, True).state == "done"
    finally:
        signal.signal(signal.SIGINT, ignored)
    assert "\nto the end" not in (tmp_path / "sleeps" / "log.txt").read_text()


def test_what_leaves_nothing_to_read_has_failed(tmp_path: Path) -> None:
    outcome = day.take(step("empty", "pass", read=steps_module._benchmark), tmp_path, 60, True)
    assert outcome.state == "failed" and outcome.told[0].startswith("it left nothing to read")


def test_without_a_gpu_only_the_dry_run_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no NVIDIA GPU is found: dry=true tries the steps on the CPU"):
        day.main([])
    for words in (["minutes=0"], ["wet=true"], ["nothing", "dry=true"]):
        with pytest.raises(UserError):
            day.main(words)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(day, "chosen", lambda names, data: (step("good", "pass"), step("bad", "1/0")))
    with pytest.raises(UserError, match="^failed: bad; outputs/gpu_day-dry/STEP/log.txt tells why"):
        day.main(["dry=true", "minutes=5"])
    assert (tmp_path / "outputs/gpu_day-dry/report.html").is_file()
