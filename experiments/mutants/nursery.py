"""A process with the heavy libraries loaded, which forks once for every run of tests.

It reads one JSON object a line from stdin and answers each with one. Nothing of `nas` is loaded here, so that every fork imports
the source as it is at that moment. Linux and macOS.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

#: What the tests load, and what takes longest to load.
HEAVY = ("hypothesis", "numpy", "torch", "yaml")
#: Wall seconds for each CPU second of the limit: a test that sleeps, or a busy machine.
PATIENCE = 15


class Chosen:
    """A pytest plugin that runs the tests of a list alone, in its order, and notes the first that fails."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.order = {name: index for index, name in enumerate(tests)}
        self.failed = ""

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        gone = [item for item in items if item.nodeid not in self.order]
        config.hook.pytest_deselected(items=gone)
        items[:] = sorted(
            (item for item in items if item.nodeid in self.order), key=lambda item: self.order[item.nodeid]
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


class Reach:
    """A pytest plugin that notes which lines each test runs, and its CPU seconds.

    What a fixture does counts for every test of its file, what an import does for every test: they happen once for many.
    """

    def __init__(self, sources: Collection[str]) -> None:
        from coverage import Coverage

        self.root = Path.cwd()
        self.coverage = Coverage(data_file=None, include=[str(self.root / name) for name in sources], config_file=False)
        self.seconds: dict[str, float] = {}
        self.coverage.start()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        forget()
        began = time.process_time()
        self.coverage.switch_context(item.nodeid.partition("::")[0])
        yield
        self.coverage.switch_context("")
        self.seconds[item.nodeid] = round(time.process_time() - began, 3)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        self.coverage.switch_context(item.nodeid)
        yield
        self.coverage.switch_context(item.nodeid.partition("::")[0])

    def lines(self) -> Mapping[str, Mapping[int, list[str]]]:
        """By file and line: tests, files of tests, and "" for a line that an import runs."""
        self.coverage.stop()
        data = self.coverage.get_data()
        return {
            Path(name).relative_to(self.root).as_posix(): data.contexts_by_lineno(name)
            for name in data.measured_files()
        }


def forget() -> None:
    """Empty the caches of functions, so that each test runs all the lines that it would run alone."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("nas", "search_spaces", "experiments"):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def run_tests(job: Mapping[str, Any], answer: int) -> None:
    """In a fork: the tests of a job, and what came of them through the pipe `answer`; with `reach` what they run."""
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    options = ["-q", "-n0", "-p", "no:randomly", "-p", "no:cacheprovider", "-m", "not slow and not benchmark"]
    if job.get("reach"):
        watcher = Reach(job["reach"])
        status = int(pytest.main([*options, *job["files"]], plugins=[watcher]))
        told: dict[str, Any] = {"status": status, "lines": watcher.lines(), "seconds": watcher.seconds}
    else:
        sys.dont_write_bytecode = True  # a changed source must never leave its bytecode behind
        resource.setrlimit(resource.RLIMIT_CPU, (job["seconds"], job["seconds"] + 1))
        chosen = Chosen(job["tests"])
        status = int(pytest.main([*options, "-x", *job["files"]], plugins=[chosen]))
        told = {"status": status, "failed": chosen.failed}
    with os.fdopen(answer, "w") as pipe:
        json.dump(told, pipe)


def answered(job: Mapping[str, Any]) -> dict[str, Any]:
    """What a fork told; {"status": "timeout"} where it ran too long, {"status": "died"} where it ended without a word."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.close(ours)
            run_tests(job, theirs)
        finally:
            os._exit(0)
    os.close(theirs)
    alarms: list[int] = []

    def stop(number: int, _: object) -> None:
        alarms.append(number)
        os.killpg(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(0 if job.get("reach") else int(PATIENCE * job["seconds"]))
    with os.fdopen(ours) as pipe:
        text = pipe.read()
    _, end, used = os.wait4(child, 0)
    signal.alarm(0)
    cpu = used.ru_utime + used.ru_stime
    if text:
        return {**json.loads(text), "cpu": round(cpu, 2)}
    # the limit's own signal says so: the kernel counts seconds for it in ticks, and may stop a fork just before
    late = bool(alarms) or (os.WIFSIGNALED(end) and os.WTERMSIG(end) == signal.SIGXCPU)
    return {"status": "timeout" if late else "died", "cpu": round(cpu, 2)}


def serve() -> None:
    """Answer jobs until stdin ends."""
    for name in HEAVY:
        importlib.import_module(name)
    for plugin in entry_points(group="pytest11"):
        plugin.load()
    for line in sys.stdin:
        print(json.dumps(answered(json.loads(line))), flush=True)
