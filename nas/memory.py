"""Memory: what this process held at most, what it may still take, and what it frees kept for the next step. All in megabytes."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Parameters of glibc's malloc (malloc.h) and what they are inside and after `kept_memory`; the latter is where its own
#: adjustment would have come to, which ends at the first call.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
KEPT = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 64 << 20}
RETURNED = {MMAP_MAX: 65536, TRIM_THRESHOLD: 64 << 20, TOP_PAD: 128 << 10, MMAP_THRESHOLD: 32 << 20}
#: One entry for each `kept_memory` that is open: the outermost gives the memory back.
_open: list[None] = []


def start_peak() -> float | None:
    """What this process holds, its peak being counted anew from here; None where the system does not do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _lines("/proc/self/status").get("VmRSS")


def peak_memory(place: str = "cpu") -> float | None:
    """What this process held at most, since `start_peak` if that was called; None where the system does not tell.

    place: cpu, or a GPU's name (`cuda:0`), whose memory it then is.
    """
    if place.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(place) / 1e6
    told = _lines("/proc/self/status").get("VmHWM")
    if (
        told is not None
    ):  # Linux hands getrusage's figure on to the programs that a process starts: it may be another's.
        return told
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes there, KiB elsewhere


def free_memory(place: str = "cpu") -> float | None:
    """What a process may still take at a place, file caches that would be given back included; None where the system does not
    tell."""
    if place.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(place)[0] / 1e6
    found = [value for name, value in _lines("/proc/meminfo").items() if name == "MemAvailable"]
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        most, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        kept = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        found.append((most - used + int(kept.get("inactive_file", 0))) / 1e6)
    if not found and "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6)
    return min(found, default=None)


def _lines(path: str) -> dict[str, float]:
    """Lines such as `VmHWM:  12 kB` of a file of the system, by name."""
    with suppress(OSError):
        parts = (line.split() for line in Path(path).read_text().splitlines())
        return {part[0].rstrip(":"): int(part[1]) * 1024 / 1e6 for part in parts if part[2:] == ["kB"]}
    return {}


@contextmanager
def kept_memory() -> Iterator[None]:
    """Inside this context (or the function that it decorates) this process keeps the memory that it frees.

    A network's maps are larger than what malloc keeps by itself: every step would hand them back and fault every page of
    them in again, which takes a third of a training's time on the CPU (experiments/train_step). No result changes. Does
    nothing without glibc, or where the environment tells malloc what to do.
    """
    told = {"GLIBC_TUNABLES", "LD_PRELOAD"} & set(os.environ) or any(name.startswith("MALLOC_") for name in os.environ)
    malloc = None if told or sys.platform != "linux" else ctypes.CDLL(None)
    if malloc is None or not hasattr(malloc, "mallopt"):
        yield
        return
    _open.append(None)
    try:
        for parameter, value in KEPT.items():
            malloc.mallopt(parameter, value)
        yield
    finally:
        _open.pop()
        if not _open:
            for parameter, value in RETURNED.items():
                malloc.mallopt(parameter, value)
            malloc.malloc_trim(0)
