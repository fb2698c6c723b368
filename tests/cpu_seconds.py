"""python -m pytest -p tests.cpu_seconds: what each test costs, in CPU seconds of its process and of those that it started.

Unlike `--durations`, this does not depend on what else the machine does. A fixture counts for the first test that needs it, an
import for the first that imports. In the end come the total and the 20 costliest; CPU_SECONDS=FILE also writes all of them.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Generator

import pytest

_BEGAN = pytest.StashKey[float]()
_COSTS: dict[str, float] = {}


def used() -> float:
    """CPU seconds of this process, and of the processes that it has waited for."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(times.ru_utime + times.ru_stime for times in map(resource.getrusage, kinds))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    item.stash[_BEGAN] = used()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "teardown":  # the report travels from the workers of pytest-xdist
        report.user_properties.append(("cpu_seconds", used() - item.stash[_BEGAN]))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for name, seconds in report.user_properties:
        if name == "cpu_seconds":
            _COSTS[report.nodeid] = float(str(seconds))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = [f"{seconds:8.2f}  {test}" for test, seconds in sorted(_COSTS.items(), key=lambda pair: -pair[1])]
    if not lines:
        return
    terminalreporter.section("CPU seconds")
    terminalreporter.line(f"{sum(_COSTS.values()):8.0f}  {len(lines)} tests")
    for line in lines[:20]:
        terminalreporter.line(line)
    if path := os.environ.get("CPU_SECONDS"):
        with open(path, "w") as file:
            file.writelines(f"{line}\n" for line in lines)
