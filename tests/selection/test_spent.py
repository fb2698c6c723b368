"""What a selection took: starts add up, what ran side by side counts once on the wall clock, a killed start counts too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nas.errors import UserError
from nas.selection import spent
from nas.selection.spent import Spent, Start, Stopwatch


def test_starts_add_up_and_time_side_by_side_counts_once() -> None:
    starts = [Start(100.0, 50.0, 40.0), Start(1000.0, 60.0, 55.0), Start(1030.0, 100.0, 80.0), Start(1040.0, 5.0, 1.0)]
    assert Spent.of(starts[::-1]) == Spent(seconds=50.0 + 130.0, cpu_seconds=176.0, starts=4)
    assert Spent.of([]) == Spent(0.0, 0.0, 0)
    assert str(Spent.of(starts)) == "3.0 minutes (2.9 CPU minutes, 4 starts)"
    assert str(Spent.of(starts[:1])) == "0.8 minutes (0.7 CPU minutes)"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The clocks of the watch, set by hand."""
    now = {"time": 1000.0, "cpu": 5.0, "children": 2.0}
    monkeypatch.setattr(spent.time, "time", lambda: now["time"])
    monkeypatch.setattr(spent.time, "perf_counter", lambda: now["time"])
    monkeypatch.setattr(spent.time, "process_time", lambda: now["cpu"])
    monkeypatch.setattr(spent, "_children", lambda: now["children"])
    return now


def test_a_second_start_goes_on_counting(clock: dict[str, float], tmp_path: Path) -> None:
    with Stopwatch(tmp_path / "starts") as watch:
        clock |= {"time": 1010.0, "cpu": 9.0, "children": 3.0}
        assert watch.total() == Spent(10.0, 5.0, 1)
        with watch.apart():  # a worker with a file of its own
            clock["children"] = 50.0
        clock["cpu"] = 10.0
    clock["time"] = 5000.0
    with Stopwatch(tmp_path / "starts", begun=True) as watch:
        clock |= {"time": 5007.0, "cpu": 12.5}
        assert watch.total() == Spent(17.0, 6.0 + 2.5, 2)
    assert len(list((tmp_path / "starts").iterdir())) == 2


def test_what_began_without_times_gets_none(tmp_path: Path) -> None:
    for _ in range(2):
        with Stopwatch(tmp_path / "starts", begun=True) as watch:
            assert watch.total() is None
    assert not (tmp_path / "starts").exists()


def test_a_killed_start_leaves_its_time(tmp_path: Path) -> None:
    folder = tmp_path / "starts"
    code = f"""
import os, pathlib
from nas.selection import spent
spent.EVERY = 0.01
with spent.Stopwatch(pathlib.Path({str(folder)!r})) as watch:
    (path,) = watch.folder.glob('*.json')
    first = path.read_bytes()
    while path.read_bytes() == first:
        sum(range(10000))
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    (path,) = folder.glob("*.json")
    assert json.loads(path.read_text())["seconds"] > 0
    path.write_text("{}")
    with pytest.raises(UserError, match="lacks began, seconds, cpu_seconds"):
        Stopwatch(folder).total()
