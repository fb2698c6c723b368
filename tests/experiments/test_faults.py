"""A dozen points of `python -m experiments.faults`: what fails ends in one line, and the run goes on to the same bytes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="calls are caught on Linux, in C")
def test_a_dozen_faults_end_in_one_line_and_cost_nothing() -> None:
    line = [
        sys.executable,
        "-m",
        "experiments.faults",
        "only=search,train,export",
        "sample=12",
        "seed=20",
        "write=false",
    ]
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-2000:]
    assert "12 points, 0 of them not as they should" in ended.stdout
