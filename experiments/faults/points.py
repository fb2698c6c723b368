"""One point: a run in a forked process that a fault ends, what it told, and the same run gone on with."""

from __future__ import annotations

import ctypes
import errno
import importlib
import mmap
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: What a call ends with, in turn; 0 kills the process.
FAULTS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EACCES": errno.EACCES, "kill": 0}
#: Seconds after which a run counts as hanging.
PATIENCE = 300.0
#: How a run may end at a fault: told in one line, killed, or as if nothing had happened.
GOOD = ("one line", "killed", "went on")


@dataclass(frozen=True)
class Scene:
    """A small run. prepare: makes what it needs, once; first and again: what is run in its folder, and what goes on there.

    again gives several: the first that ends well is it. kept: the bytes by name that must be those of an undisturbed run.
    """

    name: str
    prepare: Callable[[Path], None]
    first: Callable[[Path], None]
    again: tuple[Callable[[Path], None], ...]
    kept: Callable[[Path], Mapping[str, bytes]]


@dataclass(frozen=True)
class Outcome:
    """What came of one point. ended: one line, killed, went on (the fault changed nothing), or what went wrong."""

    scene: str
    point: int
    fault: str
    call: str
    file: str
    ended: str
    again: str
    line: str

    @property
    def good(self) -> bool:
        """Whether the run ended as it may and goes on to the same bytes."""
        return self.ended in GOOD and self.again == "same bytes"


class _Point(ctypes.Structure):
    """The struct of faults.c, in memory that forked processes share."""

    _fields_ = [
        ("count", ctypes.c_long),
        ("at", ctypes.c_long),
        ("error", ctypes.c_int),
        ("struck", ctypes.c_int),
        ("call", ctypes.c_char * 16),
        ("path", ctypes.c_char * 512),
        ("root", ctypes.c_char * 512),
    ]


class Runner:
    """Runs scenes in folders below `place`; library: the compiled faults.c, which is loaded already."""

    def __init__(self, place: Path, library: str) -> None:
        self.place, self.library = place, ctypes.CDLL(library)
        self.memory = mmap.mmap(-1, ctypes.sizeof(_Point))
        self.point = _Point.from_buffer(self.memory)
        self.wanted: dict[str, Mapping[str, bytes]] = {}

    def points(self, scene: Scene) -> int:
        """How many calls an undisturbed run of the scene makes; the first asking prepares it."""
        scene.prepare(self.place)
        folder = self.place / f"{scene.name}-straight"
        code, told = self._run(scene.first, folder, 0, 0)
        if code:
            raise RuntimeError(f"{scene.name} does not run undisturbed: {told}")
        count, self.wanted[scene.name] = self.point.count, scene.kept(folder)
        for name in (self.place / "modules").read_text().split():
            with suppress(Exception):  # forks need not import again what this run imported
                importlib.import_module(name)
        return count

    def outcome(self, scene: Scene, number: int) -> Outcome:
        """What comes of a fault at call `number`."""
        folder = self.place / "run"
        shutil.rmtree(folder, ignore_errors=True)
        fault = list(FAULTS)[number % len(FAULTS)]
        code, told = self._run(scene.first, folder, number, FAULTS[fault])
        lines = [line for line in told.splitlines() if line.strip() and not line.startswith("warning:")]
        if not self.point.struck:
            ended = "not reached"
        elif code == -signal.SIGKILL:
            ended = "killed"
        elif code == 0:
            ended = "went on"
        elif code == 1 and len(lines) == 1 and lines[0].startswith("error: "):
            ended = "one line"
        else:
            ended = f"exit {code}, {len(lines)} lines"
        call, path = self.point.call.decode(), self.point.path.decode()
        again = "nothing to go on with"
        for step in scene.again:
            code, more = self._run(step, folder, 0, 0)
            if code == 0:
                differing = self._differing(scene, folder)
                again = f"other bytes: {', '.join(differing)[:200]}" if differing else "same bytes"
                break
            again = f"exit {code}: {more.strip()[-300:]}"
            if "Traceback" in more or len(more.strip().splitlines()) != 1:
                break
        line = (lines[-1] if lines else "").replace(str(self.place), "")
        if ended not in ("one line", "killed", "went on"):
            line = told.strip()[-1500:]
        return Outcome(scene.name, number, fault, call, path, ended, again, line)

    def _differing(self, scene: Scene, folder: Path) -> list[str]:
        try:
            found, wanted = scene.kept(folder), self.wanted[scene.name]
        except Exception as error:
            return [f"unreadable: {error}"]
        return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))

    def _run(self, step: Callable[[Path], None], folder: Path, at: int, error: int) -> tuple[int, str]:
        """Exit status and standard error of a step in a process of its own."""
        self.point.count, self.point.at, self.point.error, self.point.struck = 0, at, error, 0
        self.point.call, self.point.path, self.point.root = b"", b"", str(folder).encode()
        told = self.place / "stderr"
        sys.stdout.flush()
        child = os.fork()
        if not child:
            code = 1
            try:
                os.setsid()
                for number, name in ((1, "stdout"), (2, "stderr")):
                    os.dup2(os.open(self.place / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
                os.chdir(self.place)
                self.library.faults_arm(ctypes.c_void_p(ctypes.addressof(self.point)))
                step(folder)
                code = 0
                if not at:
                    (self.place / "modules").write_text("\n".join(set(sys.modules) - {"__main__"}))
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
                if isinstance(ended.code, str):
                    print(ended.code, file=sys.stderr)
            except BaseException:
                traceback.print_exc()
                code = 70
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        deadline = time.monotonic() + PATIENCE
        while True:
            ended_child, status = os.waitpid(child, os.WNOHANG)
            if ended_child:
                break
            if time.monotonic() > deadline:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return 99, "it hangs"
            time.sleep(0.005)
        return os.waitstatus_to_exitcode(status), told.read_text(errors="replace")
