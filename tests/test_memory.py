"""A process that tells its memory, and keeps what it frees while a network works."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nas.memory import KEPT, RETURNED, free_memory, kept_memory, peak_memory, start_peak


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """What malloc is told, in order, without being told; the environment says nothing of it."""
    told: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda *pair: told.append(pair), malloc_trim=lambda pad: told.append((0, pad)))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_ARENA_MAX"):
        monkeypatch.delenv(name, raising=False)
    yield told


def test_memory_is_kept_inside_and_returned_after_an_error_too(settings: list[tuple[int, int]]) -> None:
    with pytest.raises(ZeroDivisionError), kept_memory():
        assert settings == list(KEPT.items())
        raise ZeroDivisionError
    assert settings[len(KEPT) :] == [*RETURNED.items(), (0, 0)]


def test_the_outermost_returns_it(settings: list[tuple[int, int]]) -> None:
    with kept_memory():
        with kept_memory():
            pass
        assert (0, 0) not in settings
    assert settings[-1] == (0, 0)


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_an_environment_that_tells_malloc_is_obeyed(
    name: str, settings: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "2")
    with kept_memory():
        pass
    assert settings == []


@pytest.mark.parametrize("library", [SimpleNamespace(), None])
def test_nothing_happens_without_glibc(library: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    with kept_memory():
        assert torch.zeros(3).sum() == 0


#: Page faults of twelve steps over maps of 50 MiB, more than malloc keeps by itself, in a process that has freed nothing else.
FAULTS = """
import resource
import torch
from nas.memory import kept_memory

images = torch.rand(8, 16, 320, 320, requires_grad=True)
with kept_memory():
    for _ in range(12):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        maps = images
        for _ in range(4):
            maps = (maps * 1.01).relu()
        maps.sum().backward()
        images.grad = None
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="malloc is another than glibc's")
def test_the_maps_of_later_steps_are_not_faulted_in_again() -> None:
    import resource

    told = {"GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_ARENA_MAX"}
    environment = {name: value for name, value in os.environ.items() if name not in told}
    done = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True)
    _, *later = map(int, done.stdout.split())
    pages = 8 * 16 * 320 * 320 * 4 / resource.getpagesize()
    assert sorted(later)[5] < 16 * pages / 2  # without it every step faults 16 maps in, page by page


def test_this_machine_tells_its_memory() -> None:
    free, peak = free_memory(), peak_memory()
    assert free is not None and peak is not None
    assert 10 < free < 1e9 and 10 < peak < 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_peak_is_counted_anew() -> None:
    before = start_peak()
    if before is None:
        pytest.skip("this system does not let a process count its peak anew")
    with mmap.mmap(-1, 200_000_000) as block:  # given back at once, whatever malloc keeps
        for start in range(0, len(block), 4096):
            block[start] = 1
    first = peak_memory()
    assert first is not None and first - before > 190
    start_peak()
    second = peak_memory()
    assert second is not None and second < first - 150


def test_the_limit_of_a_container_counts_and_its_file_cache_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "/proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\nHugePages_Total: 0\n",
        "/sys/fs/cgroup/memory.max": "3000000000\n",
        "/sys/fs/cgroup/memory.current": "2500000000\n",
        "/sys/fs/cgroup/memory.stat": "anon 1500000000\ninactive_file 1000000000\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda path: told[str(path)])
    assert free_memory() == 1500
    told["/sys/fs/cgroup/memory.max"] = "max\n"
    assert free_memory() == 8192


def test_a_system_that_tells_nothing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path, *text: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(Path, "write_text", missing)
    monkeypatch.setattr(os, "sysconf_names", {})
    monkeypatch.setitem(sys.modules, "resource", None)
    assert (free_memory(), peak_memory(), start_peak()) == (None, None, None)
