"""Threads of a training: as many as the machine leaves it, asleep while they wait, the same afterwards as before."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nas.errors import UserError
from nas.training import cores
from nas.training.run import run_training

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def silent(monkeypatch):
    for name in cores.WAITING:
        monkeypatch.delenv(name, raising=False)


def test_threads_wait_briefly_unless_the_environment_says_how(silent, monkeypatch):
    cores.wait_briefly()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    cores.wait_briefly()
    assert "OMP_WAIT_POLICY" not in os.environ


def test_the_command_decides_before_torch_is_loaded():
    """The policy is read when torch loads its runtime: importing the command's module must not bring torch."""
    code = (
        "import sys, nas.train, nas.training.cores as cores; assert 'torch' not in sys.modules; order = []\n"
        "cores.wait_briefly = nas.train.wait_briefly = lambda: order.append('torch' in sys.modules)\n"
        "nas.train.launch = lambda *_: order.append('torch' in sys.modules)\n"
        "nas.train.main(); assert order == [False, False], order"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=100)


@pytest.mark.parametrize(
    ("files", "group", "expected"),
    [
        ({"cpu.max": "150000 100000"}, "0::/", 1.5),
        ({"cpu.max": "max 100000"}, "0::/", math.inf),
        (
            {"job/cpu.max": "max 100000", "cpu.max": "400000 100000", "job/step/cpu.max": "900000 100000"},
            "0::/job/step",
            4,
        ),
        ({"cpu.max": "200000 100000"}, "0::/somewhere/outside", 2),
        (
            {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"},
            "4:cpu,cpuacct:/docker/a1\n3:memory:/x",
            0.5,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/", math.inf),
        ({"cpu.max": "nonsense"}, "0::/", math.inf),
        ({}, "", math.inf),
    ],
)
def test_the_quota_of_control_groups_is_read(tmp_path, files, group, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "own").write_text(group + "\n")
    assert cores.cpu_quota(tmp_path, tmp_path / "own") == expected
    assert cores.cpu_quota(tmp_path, tmp_path / "absent") == math.inf


@pytest.mark.parametrize(("quota", "bound", "expected"), [(1.5, 4, 2), (0.2, 4, 1), (math.inf, 3, 3), (8.0, 3, 3)])
def test_usable_cores_are_those_of_affinity_and_quota(monkeypatch, quota, bound, expected):
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(bound)), raising=False)
    assert cores.usable_cores() == expected


def test_threads_are_chosen_told_and_given_back(silent, monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        monkeypatch.setattr(cores, "usable_cores", lambda: 4)
        for wanted, processes, expected in ((None, 1, 4), (None, 3, 1), (None, 9, 1), (7, 1, 7), (1, 1, 1)):
            with cores.computing_threads(wanted, processes) as line:
                assert torch.get_num_threads() == expected
                assert line.startswith(f"threads: {expected} (4 usable cores), ")
                assert ("spin" in line) == (expected > 1)
            assert torch.get_num_threads() == 6
        monkeypatch.setattr(cores, "usable_cores", lambda: 16)
        monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        with cores.computing_threads(None) as line:  # never more than torch would take
            assert line == "threads: 6 (16 usable cores), OMP_WAIT_POLICY=PASSIVE"
    finally:
        torch.set_num_threads(before)


def test_a_training_computes_with_them(tiny, tmp_path, monkeypatch, capsys):
    from nas.training.trainer import Trainer

    seen = set()
    step = Trainer._step
    monkeypatch.setattr(Trainer, "_step", lambda self, group: (seen.add(torch.get_num_threads()), step(self, group)))
    before = torch.get_num_threads()
    task = tiny.tiny_task(tmp_path / "shapes", {"epochs": 2, "threads": 3})
    run_training(task, tmp_path / "run")
    assert seen == {3} and torch.get_num_threads() == before
    assert capsys.readouterr().out.startswith("threads: 3 (")
    task.options.threads = 0
    with pytest.raises(UserError, match="trainer.threads must be a whole number from 1 to 1,024 or null, got 0"):
        run_training(task, tmp_path / "other")
