"""What a whole selection took, search, plan and trainings together: every start keeps its own time in a file."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread

from nas.errors import UserError
from nas.files import read_json, write_json
from nas.options import read_object

#: Seconds between two writings: what a killed start leaves uncounted at most.
EVERY = 10.0


@dataclass(frozen=True, slots=True)
class Start:
    """One process at work on a selection: when it began (seconds since 1970), for how many seconds, and its CPU seconds."""

    began: float
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of the wall clock while any process was at work, CPU seconds of all of them, and how many there were."""

    seconds: float
    cpu_seconds: float
    starts: int

    @classmethod
    def of(cls, starts: Iterable[Start]) -> Spent:
        """The sum; time that processes spent side by side counts once on the wall clock."""
        ordered = sorted(starts, key=lambda start: start.began)
        wall, until = 0.0, 0.0
        for start in ordered:
            end = start.began + start.seconds
            wall += max(0.0, end - max(until, start.began))
            until = max(until, end)
        return cls(wall, sum(start.cpu_seconds for start in ordered), len(ordered))

    def __str__(self) -> str:
        starts = f", {self.starts} starts" if self.starts > 1 else ""
        return f"{self.seconds / 60:.1f} minutes ({self.cpu_seconds / 60:.1f} CPU minutes{starts})"


class Stopwatch:
    """Times this process from now on; a context in which its file in `folder` is written every few seconds.

    CPU seconds are those of the process and of its child processes that have ended (on Windows of the process alone).
    begun: the selection has come so far that earlier starts must have been at work; if they kept no times (an earlier
    version did not), nothing is kept, as it would not be the time of the whole.
    """

    def __init__(self, folder: Path, begun: bool = False) -> None:
        self.folder, self._kept = folder, folder.is_dir() or not begun
        self._file = folder / f"{secrets.token_hex(8)}.json"
        self._began, self._clock, self._cpu, self._apart = time.time(), time.perf_counter(), _cpu(), 0.0
        self._ended = Event()
        self._thread = Thread(target=self._write_often, daemon=True)

    def __enter__(self) -> Stopwatch:
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(UserError):  # a full disk has been told already, or is told by what is written next
            self._write()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Child processes that are waited for meanwhile are not counted: they keep a file of their own."""
        before = _children()
        yield
        self._apart += _children() - before

    def total(self) -> Spent | None:
        """What all processes took so far, None where that is not known; UserError for a damaged file."""
        if not self._kept:
            return None
        self._write()
        paths = sorted(self.folder.glob("*.json"))
        return Spent.of(read_object(Start, read_json(path), f"{path}:") for path in paths)

    def _write(self) -> None:
        if not self._kept:
            return
        seconds, cpu = time.perf_counter() - self._clock, _cpu() - self._cpu - self._apart
        write_json(self._file, asdict(Start(self._began, round(seconds, 3), round(cpu, 3))))

    def _write_often(self) -> None:
        while not self._ended.wait(EVERY):
            with suppress(UserError):
                self._write()


def _cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return time.process_time() + _children()


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system
