"""One search from the command line, killed at given moments and gone on with, and the digests of what it leaves."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
OWN = Path(__file__).with_name("own_score.py")
#: Small detectors at 64 pixels, some of which the limit refuses.
SEARCH = ("+budget.mine.params_m=0.07", "neck=nano", "image_size=64", "space.channels=[[8,16],[8,16],[16,24],[16,24],[24,32]]",
          "space.depths=[1,2,2,2,1]", "space.stem_channels=[8,8]", "space.max_layers=19", "searcher=evolution",
          "searcher.population=64")  # fmt: skip
#: The words with which a score is chosen, and those that a resumed search needs beside its folder.
SCORERS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "zico": (("scorer=zico", "+scorer.batch=8"), ()),
    "own": (("scorer=own_score:layers_per_work",), ("use=[own_score]",)),
}
#: What is promised to repeat; state.npz holds the clock, too, so only its evaluations are compared.
FILES = ("best.yaml", "pareto.csv", "front.jsonl", "trace.csv", "state.scores.jsonl", "state.npz")


@dataclass(frozen=True)
class Spent:
    """CPU and wall seconds of a search with all that was killed of it, and what it had at each kill: the scores that it had
    written down, and the evaluations of its state, from which it goes on (0: from the beginning)."""

    cpu: float
    wall: float
    killed_at: tuple[int, ...]
    saved: tuple[int, ...]


def search(folder: Path, scorer: str, evaluations: int, seed: int, workers: int, moments: Sequence[int] = ()) -> Spent:
    """Search in a new `folder`, which is emptied; raises UserError if it fails, or ends before a kill.

    moments: numbers of known scores, rising, at which the whole process group is killed (SIGKILL) and then resumed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(OWN, folder.parent)
    chosen, used = SCORERS[scorer]
    began, before = time.monotonic(), _children()
    words = [*SEARCH, *chosen, f"evaluations={evaluations}", f"seed={seed}", f"hydra.run.dir={folder.name}"]
    lost, kills = 0.0, []
    for moment in (*moments, None):
        lost += _go(folder, [*words, f"workers={workers}", "progress=false"], moment)
        kills += [] if moment is None else [(scored(folder), len(_history(folder)))]
        words = [f"resume={folder.name}", *used]
    killed_at, saved = zip(*kills, strict=True) if kills else ((), ())
    return Spent(_children() - before + lost, time.monotonic() - began, killed_at, saved)


def _go(folder: Path, words: Sequence[str], moment: int | None) -> float:
    """Run the command beside `folder` to its end, or kill it at the moment; the CPU seconds of workers killed with it."""
    environment, at_start, lost = os.environ | {"PYTHONPATH": str(ROOT)}, scored(folder), 0.0
    with (folder / "printed.txt").open("a") as printed:
        process = subprocess.Popen([sys.executable, "-m", "nas.search", *words], cwd=folder.parent, env=environment,
                                   stdout=printed, stderr=printed, start_new_session=True)  # fmt: skip
    try:
        if moment is not None:
            while process.poll() is None and scored(folder) < max(moment, at_start + 1):
                time.sleep(0.01)
            if process.poll() is None:
                lost = _workers_seconds(process.pid)
        else:
            process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    if code != (0 if moment is None else -signal.SIGKILL):
        before = f" before it could be killed at {moment} scores" * (moment is not None)
        raise UserError(f"{folder} ended with status {code}{before}: see printed.txt there")
    return lost


def scored(folder: Path) -> int:
    """How many scores a search has written down."""
    with suppress(FileNotFoundError):
        return max((folder / "state.scores.jsonl").read_bytes().count(b"\n") - 1, 0)
    return 0


def evaluated(folder: Path) -> int:
    """How many candidates a finished search has looked at."""
    return int(json.loads((folder / "summary.json").read_text())["evaluated"])


def digests(folder: Path) -> dict[str, str]:
    """A digest of every compared file of a finished search."""
    found = {name: (folder / name).read_bytes() for name in FILES[:-1]}
    found[FILES[-1]] = _history(folder).tobytes()
    return {name: hashlib.sha256(data).hexdigest()[:12] for name, data in found.items()}


def _history(folder: Path) -> np.ndarray:
    """The evaluations that state.npz holds, (candidates, score and costs); none where it is not written yet."""
    if not (folder / "state.npz").exists():
        return np.empty((0, 0))
    with np.load(folder / "state.npz", allow_pickle=False) as state:
        return state["history"]


def _children() -> float:
    """CPU seconds of the processes that this one has waited for."""
    times = resource.getrusage(resource.RUSAGE_CHILDREN)
    return times.ru_utime + times.ru_stime


def _workers_seconds(group: int) -> float:
    """CPU seconds so far of the processes of a group but its first, which nobody waits for; 0 where there is no /proc."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            values = path.read_text().rpartition(")")[2].split()
            if int(values[2]) == group != int(path.parent.name):
                ticks += int(values[11]) + int(values[12])
    return ticks / os.sysconf("SC_CLK_TCK")
