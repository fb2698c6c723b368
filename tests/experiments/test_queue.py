"""The queue at work: interrupted, resumed, taught, shared; and what it does when a run fails or memory is short."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from experiments import queue
from experiments import run as run_module
from experiments.data import RESULTS
from experiments.queue import Job, Trainings, add_results, read_results
from experiments.run import Running, Shift, main
from experiments.scales import load_scale, scale_names
from experiments.tables import load_table, table_names
from nas.errors import UserError

DONE = "import json, sys; json.dump({line}, open('result.json', 'w'))"


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    """The five trainings of the table of distillation, without results."""
    return Trainings(load_scale("tiny"), tmp_path).missing(["report_distillation"])


def script(monkeypatch: pytest.MonkeyPatch, source: Callable[[Job], str]) -> list[str]:
    """Let every job run a line of Python in its folder instead of a training; returns the rows as they are started."""
    started: list[str] = []

    def start(self: Shift, job: Job) -> Running:
        job.folder.mkdir(parents=True, exist_ok=True)
        started.append(job.row.name)
        with (job.folder / "log.txt").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-S", "-c", source(job)], cwd=job.folder, stderr=log)
        return Running(job, process, time.time(), alone=not self.running)

    monkeypatch.setattr(Shift, "_start", start)
    return started


def finishing(job: Job) -> str:
    line = {key: 0 for key in queue.COLUMNS} | {
        "table": job.table.name, "row": job.row.name, "scale": "tiny", "data": job.data, "recipe": job.recipe,
    }  # fmt: skip
    return DONE.format(line=line)


def test_students_wait_for_their_teacher(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    started = script(monkeypatch, finishing)
    shift = Shift(at_once=2)
    shift.work(jobs, math.inf)
    assert (shift.finished, shift.failed) == (5, 0) and started[0] == "M, MAE-CSP"
    assert started.index("AlignedOTA") == 1 and set(started[2:]) == {"mimic", "MGD", "CWD"}
    assert [line["row"] for line in read_results("report_backbone", jobs[0].output / "results")] == ["M, MAE-CSP"]


def test_a_failed_teacher_ends_the_shift_and_is_told(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(monkeypatch, lambda job: "raise SystemExit(3)" if job.row.name == "M, MAE-CSP" else finishing(job))
    shift = Shift()
    shift.work(jobs, math.inf)
    assert (shift.finished, shift.failed) == (1, 1)
    assert "failed: report_backbone, M, MAE-CSP, seed 0: see" in capsys.readouterr().out


def test_a_run_without_memory_beside_others_is_tried_again(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    short = "import os, sys\nif not os.path.exists('again'): open('again', 'w'); sys.exit('CUDA out of memory')\n"
    beside = f"import os, time\nwhile not os.path.exists({str(jobs[1].folder / 'again')!r}): time.sleep(0.02)\n"
    started = script(
        monkeypatch,
        lambda job: (beside if job.row.name == "M, MAE-CSP" else short) + finishing(job),
    )
    shift = Shift(at_once=2)
    shift.work(jobs[:2], math.inf)
    assert (shift.finished, shift.failed, shift.at_once) == (2, 0, 1)
    assert started == ["M, MAE-CSP", "AlignedOTA", "AlignedOTA"]


def test_a_result_that_nobody_noted_is_taken_and_a_taken_folder_is_left_alone(
    jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = script(monkeypatch, finishing)
    jobs[0].folder.mkdir(parents=True)
    subprocess.run([sys.executable, "-S", "-c", finishing(jobs[0])], cwd=jobs[0].folder, check=True)
    jobs[1].folder.mkdir(parents=True)
    shift = Shift()
    clock = SimpleNamespace(monotonic=lambda: float(shift.finished == 4), time=time.time, sleep=time.sleep)
    monkeypatch.setattr(run_module, "time", clock)
    with FileLock(jobs[1].folder / "lock"):
        shift.work(jobs, 0.5)
    assert shift.finished == 4 and started == ["mimic", "MGD", "CWD"]


def test_a_gpu_takes_what_its_memory_allows(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "gpu_memory", lambda: (60, 100))
    gpu = [job for job in Trainings(load_scale("gpu"), jobs[0].output).missing(["report_assigner"]) if job.seed == 0]
    shift = Shift(at_once=4)
    assert shift._has_room(gpu[0])
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    shift.running = [Running(job, process, time.time() - 10, False) for job in gpu[:1]]
    assert not shift._has_room(gpu[1]), "what the first one needs is not known before its first steps"
    gpu[0].folder.mkdir(parents=True)
    (gpu[0].folder / "steps.csv").touch()
    assert not shift._has_room(gpu[1]), "60 free beside one that holds 40 is just 1.5 times as much, not more"
    monkeypatch.setattr(run_module, "gpu_memory", lambda: (61, 100))
    assert shift._has_room(gpu[1])
    process.wait()


@pytest.mark.slow
def test_a_real_queue_is_cut_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["report_fusion", "scale=tiny", "jobs=2", f"output={tmp_path}"]
    main([*words, "minutes=0.005"])
    assert "4 runs are missing" in capsys.readouterr().out
    main([*words, "minutes=600"])
    assert "4 runs finished, 0 are left" in capsys.readouterr().out
    lines = read_results("report_fusion", tmp_path / "results")
    assert {line["row"] for line in lines} == {"conv", "CSP", "CSP + reparam", "CSP + reparam + ELAN"}
    assert all(line["steps"] == "30" and line["data"] == "shapes" and line["device"] for line in lines)
    assert [line["row"] for line in read_results("report_models", tmp_path / "results")] == ["S"]
    main(words)
    assert "0 runs are missing" in capsys.readouterr().out


def test_an_unknown_table_is_told_before_anything_runs() -> None:
    with pytest.raises(UserError, match="no experiment 'report_nothing'"):
        main(["report_nothing", "scale=tiny"])


def test_without_a_name_everything_is_listed_and_nothing_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Shift, "work", lambda *_: pytest.fail("a training was started"))
    before = {path: path.read_bytes() for path in RESULTS.glob("*.csv")}
    main(["scale=tiny", f"output={tmp_path / 'out'}"])
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].split()[-6:] == list(scale_names())
    tiny = Trainings(load_scale("tiny"), tmp_path)
    for table in map(load_table, table_names()):
        (place,) = [i for i, line in enumerate(lines) if line.split()[:1] == [table.name]]
        assert lines[place + 1].strip() == "; ".join(row.name for row in table.rows)
        assert lines[place].split()[1 + scale_names().index("tiny")] == str(len(tiny.missing([table.name]))) != "0"
    assert all(load_scale(name).note in printed for name in scale_names())
    assert not (tmp_path / "out").exists() and before == {path: path.read_bytes() for path in RESULTS.glob("*.csv")}


def test_drawn_shapes_stay_out_of_the_results(
    jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAENAS_BCCD", str(tmp_path / "nowhere"))
    scale = load_scale("cpu")
    assert scale.data == "bccd"
    trainings = Trainings(scale, tmp_path)
    assert trainings.data == "shapes" and trainings.place == tmp_path / "results"
    script(monkeypatch, finishing)
    before = {path: path.read_bytes() for path in RESULTS.rglob("*.csv")}
    main(["report_assigner", f"output={tmp_path}"])
    assert "bccd is not at hand and drawn shapes stand in for it; the results go to" in capsys.readouterr().out
    assert {line["data"] for line in read_results("report_assigner", tmp_path / "results")} == {"shapes"}
    with pytest.raises(UserError, match="is for results on real data and shapes is drawn: give output= another folder"):
        main(["report_assigner", f"output={RESULTS}"])
    line = read_results("report_assigner", tmp_path / "results")[0]
    for words in (line, line | {"row": "new", "seed": "7"}):
        with pytest.raises(UserError, match="shapes is drawn"):
            add_results("report_assigner", [words], RESULTS)
    assert before == {path: path.read_bytes() for path in RESULTS.rglob("*.csv")}
