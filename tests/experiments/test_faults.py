"""A dozen points of `python -m experiments.faults`: what fails ends in one line, and the run goes on to the same bytes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.page import read_part
from nas.files import read_rows

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="calls are caught on Linux, in C")
def test_a_dozen_faults_end_in_one_line_and_cost_nothing(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "experiments.faults", "only=search,train,export", "seed=20", f"folder={tmp_path}"]
    for more, points in ((10, 10), (2, 12)):
        ended = subprocess.run([*line, f"sample={more}"], cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-2000:]
        assert f"{points} points, 0 of them not as they should" in ended.stdout
        assert len({(row["scene"], row["point"]) for row in read_rows(tmp_path / "faults.csv")}) == points
    assert "12 points, 0 of them not as they should be." in read_part(tmp_path / "README.md", "outcomes")
