"""Milliseconds of the bench's exported files, to be taken when the machine is otherwise idle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.detector_bench.table import Run, add_runs, load
from nas.measure.measurement import Runtime
from nas.spec import DetectorSpec


def exported_spec(run: Run, classes: int) -> DetectorSpec:
    """The network as it is exported after training: the data's image size and number of classes."""
    return replace(run.spec, image_size=run.image_size, head=replace(run.spec.head, num_classes=classes))


def measure_missing(table: Path, runtime: Runtime, repetitions: int, most: int = 0) -> int:
    """Time the networks of all runs that have no milliseconds, one by one; returns how many networks remain.

    Runs of one network on one data set share a measurement: weights do not change it. Each is stored at once.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in load(table):
        if run.measured_ms is None:
            groups.setdefault((run.data, run.digest), []).append(run)
    todo = list(groups.values())
    for number, runs in enumerate(todo[: most or None], 1):
        classes = class_count(runs[0].data)
        measured = runtime.measure(exported_spec(runs[0], classes), repetitions, kernels=False)
        facts = runtime.provenance() | {"spread_percent": round(measured.spread_percent, 2), "repetitions": repetitions}
        ms = round(measured.ms / runtime.batch, 4)
        add_runs(table, [replace(run, measured_ms=ms, measured_on=facts) for run in runs])
        print(
            f"{number}/{len(todo)} {runs[0].data} {runs[0].name}: {ms:.2f} ms, spread {measured.spread_percent:.1f} %"
        )
    return max(0, len(todo) - most) if most else 0


def class_count(data: str) -> int:
    """Classes of a data set of the bench."""
    from nas.data.fetch import load_annotated

    return len(load_annotated(data)["classes"])


def shares(runs: Sequence[Run]) -> str:
    """How many runs are measured."""
    return f"{sum(run.measured_ms is not None for run in runs)} of {len(runs)} runs are measured"
