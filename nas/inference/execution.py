"""A network at work: in eval mode and without gradients, timed, its memory told, and one line when memory runs out."""

from __future__ import annotations

import ctypes
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nas.errors import UserError

#: What a network that predicts gives, scores (B, N, C) and boxes (B, N, 4) first.
Outputs = Sequence[Tensor | np.ndarray]
#: Parameters of glibc's malloc (malloc.h) and what they are inside and after `kept_memory`; the latter is where its own
#: adjustment would have come to, which ends at the first call.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
KEPT = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 64 << 20}
RETURNED = {MMAP_MAX: 65536, TRIM_THRESHOLD: 64 << 20, TOP_PAD: 128 << 10, MMAP_THRESHOLD: 32 << 20}
#: One entry for each `kept_memory` that is open: the outermost gives the memory back.
_open: list[None] = []


@contextmanager
def inference(model: object) -> Iterator[torch.device]:
    """A torch module in eval mode without gradients, its mode restored afterwards; the device that it runs on."""
    if not isinstance(model, nn.Module):
        with torch.inference_mode():
            yield torch.device("cpu")
        return
    training = [module.training for module in model.modules()]
    parameter = next(model.parameters(), None)
    model.eval()
    try:
        with torch.inference_mode():
            yield parameter.device if parameter is not None else torch.device("cpu")
    finally:
        for module, mode in zip(model.modules(), training, strict=True):
            module.training = mode


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


def now(device: torch.device) -> float:
    """The clock in seconds, once the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_memory_mb(device: torch.device) -> float:
    """MiB that this process had at most: on a GPU of its memory, else of the machine's; NaN where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere


def milliseconds(
    network: Callable[[Tensor], object], images: Tensor, runs: int, warm_up: int, seconds: float = math.inf
) -> list[float]:
    """Times of up to `runs` calls on the same images after some to warm up; about `seconds` long at most."""
    times: list[float] = []
    with inference(network) as device:
        pixels, began = images.to(device), time.perf_counter()
        for run in range(warm_up + runs):
            started = now(device)
            network(pixels)
            if run >= warm_up:
                times.append(1000 * (now(device) - started))
            if times and time.perf_counter() - began > seconds:
                break
    return times


def start_peak() -> float | None:
    """Megabytes that this process holds, its peak being counted anew from here; None where the system does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _memory("VmRSS")


def peak_memory() -> float | None:
    """Megabytes that this process held at most since `start_peak`."""
    return _memory("VmHWM")


def _memory(name: str) -> float | None:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024 / 1e6
    return None


@contextmanager
def told_when_full(lower: str) -> Iterator[None]:
    """Inside this context (or the function that it decorates) memory that runs out is a UserError: where, and `lower`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        place = _full(error)
        if place is None:
            raise
        raise UserError(f"{place}: lower {lower}") from None


def _full(error: BaseException) -> str | None:
    """Which memory an error says is full; None for an error of another kind."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or "ALLOC_FAILED" in text:
        return "out of memory on the GPU"
    if "shared memory" in text:
        return "out of shared memory"
    if isinstance(error, MemoryError) or "allocate memory" in text or "not enough memory" in text:
        return "out of memory"
    if "DataLoader worker" in text and ("Killed" in text or "exited unexpectedly" in text):
        return "a process that prepares batches was killed, as happens when memory runs out"
    return None
