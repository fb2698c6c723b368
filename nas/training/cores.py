"""How many threads a training computes with, and what they do while they wait for each other.

Nothing here imports torch before it must: how OpenMP's threads wait is fixed when torch loads its runtime.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

#: What tells OpenMP's threads how to wait (the standard, GCC's runtime, LLVM's and Intel's).
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


#: Turns of a thread of GCC's runtime before it sleeps, some hundred microseconds: enough for the end of a parallel region
#: on idle cores (experiments/train_step: nothing is lost there), and a thirtieth of what it would take a busy core for.
SPINS = 10_000


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that wait for others soon sleep instead of spin on, unless the environment says how.

    It holds for what loads torch under this environment later: this process, if torch is not yet loaded, or a child.

    A network is thousands of short parallel regions that end when their last thread does. Beside another busy process one
    thread is always late, and the others would spin on the very cores that it needs. No result changes.
    """
    if not any(name in environment for name in WAITING):
        environment.update({"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(SPINS)})


def usable_cores() -> int:
    """Cores that this process may use: those it is bound to, and no more than its control group's quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(bound, cpu_quota())))


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Cores' worth of time that the control groups of this process leave it (versions 1 and 2); infinite without limit."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return math.inf
    limits = [math.inf]
    for _, kinds, path in (line for line in lines if len(line) == 3):
        if kinds and "cpu" not in kinds.split(","):
            continue
        base = root / "cpu" if kinds else root
        places = Path(path.lstrip("/"))
        for place in (places, *places.parents):  # in a container the group itself is often mounted as the root
            limits.append(_limit(base / place))
    return min(limits)


def _limit(folder: Path) -> float:
    """The quota of one group."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return float(quota) / float(period) if quota not in ("max", "-1") else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


@contextmanager
def computing_threads(wanted: int | None, processes: int = 1) -> Iterator[str]:
    """Torch's threads during a training, and a line that says so; afterwards they are as before.

    wanted None: as many as torch would take (OMP_NUM_THREADS counts), at most the usable cores shared by the `processes`
    of this machine. What else runs is left out of it: another number of threads rounds otherwise, and a training must
    repeat.
    """
    import torch

    before, cores = torch.get_num_threads(), usable_cores()
    threads = wanted if wanted is not None else min(before, max(1, cores // processes))
    torch.set_num_threads(threads)
    try:
        yield f"threads: {threads} ({cores} usable cores), {_waiting(threads)}"
    finally:
        torch.set_num_threads(before)


def _waiting(threads: int) -> str:
    told = [f"{name}={os.environ[name]}" for name in WAITING if name in os.environ]
    if told or threads == 1:
        return " ".join(told) or "alone"
    return f"which spin while they wait; GOMP_SPINCOUNT={SPINS} before Python starts is better beside other work"
