"""Measures a latency table on this device: plan, time, fit, write; an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from random import Random
from statistics import median
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen

from nas.blocks.operation import Operation
from nas.cost.latency import LatencyTable
from nas.cost.measured_table import Kernels, MeasuredRows, Row, read_rows
from nas.cost.postprocess import PostProcess
from nas.cost.table_file import Header, map_sizes, write_table
from nas.errors import UserError
from nas.files import dump_yaml, read_yaml, write_atomic
from nas.frame import Frame, NeckOptions
from nas.lowering import operations
from nas.measure import open_runtime
from nas.measure.fit import FEWEST, build_table
from nas.measure.measurement import Measurement, Runtime
from nas.options import ImageSize, Seed, Threads, check_object
from nas.spec import USUAL_SIDE, DetectorSpec, Spec, digest, from_dict, to_dict
from search_spaces import changed_limits, find_space
from search_spaces.base import SearchSpace

Progress = Callable[[str], None]
#: Random networks among which the informative ones are chosen.
POOL = 160
#: Share of the time limit that fitting and writing may need.
RESERVE = 0.03
QUICK_NETWORKS = 12
QUICK_SECONDS = 100.0
#: What is timed; measurements of another graph are not mixed with these.
GRAPH = "as exported"


@dataclass(frozen=True)
class ProfileSettings:
    """What `python -m nas.profile` is told.

    hardware: name of the table, which lies in `output`/<hardware>.json; `table` validates another file than that;
    runtime: onnxruntime, openvino, cuda or tensorrt; space: name and limits; mode: measure, quick or validate.

    time_limit_s bounds the whole run (quick: 100 s); networks: how many to time at most; repetitions of each.
    image_size: side, or several to time at in turn: the table holds for the maps of all of them (None: 640, in validation
    those of the table).
    """

    hardware: str
    output: Path
    space: dict[str, Any]
    runtime: str = "onnxruntime"
    threads: Threads = 1
    batch: Annotated[int, Ge(1), Le(65_536)] = 1
    neck: NeckOptions = field(default_factory=NeckOptions)
    image_size: ImageSize | Annotated[tuple[ImageSize, ...], MinLen(1)] | None = None
    mode: Literal["measure", "quick", "validate"] = "measure"
    time_limit_s: Annotated[float, Gt(0)] = 600.0
    networks: Annotated[int, Ge(4), Le(100_000)] = POOL
    validation_networks: Annotated[int, Ge(5), Le(100_000)] = 24
    repetitions: Annotated[int, Ge(3), Le(100_000)] = 9
    seed: Seed = 0
    table: Path | None = None

    def __post_init__(self) -> None:
        check_object(self)
        if not self.hardware[:1].isalnum() or not all(letter.isalnum() or letter in "_-." for letter in self.hardware):
            raise UserError(
                f"hardware must be a file name of letters, digits, _ - and ., a letter or digit first, got {self.hardware!r}"
            )

    @property
    def table_path(self) -> Path:
        return self.output / f"{self.hardware}.json"

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """Sides in pixels; none where none was given."""
        return (self.image_size,) if isinstance(self.image_size, int) else self.image_size or ()

    @property
    def changed_space(self) -> dict[str, object]:
        """Name of the space and the limits that are not its own: what measurements of one folder must share."""
        limits = {key: value for key, value in self.space.items() if key != "name"}
        changed = changed_limits(find_space(str(self.space["name"]), **limits))
        return {"name": self.space["name"]} | {key: value for key, value in changed.items() if key in limits}

    def random_detectors(self, count: int, seed: int) -> list[list[DetectorSpec]]:
        """About `count` distinct random detectors of the configured space and frame, equally many for each size."""
        options = dict(self.space)
        space = find_space(str(options.pop("name")), **options)
        frames = [Frame.of(self.neck, side) for side in self.image_sizes or (USUAL_SIDE,)]
        share = -(-count // len(frames))
        return [
            random_detectors(space.in_frame(frame), frame, share, seed + place) for place, frame in enumerate(frames)
        ]


def random_detectors(space: SearchSpace[Spec], frame: Frame, count: int, seed: int) -> list[DetectorSpec]:
    """Distinct random detectors of a space; raises UserError if it holds too few."""
    rng = Random(seed)
    found: dict[str, DetectorSpec] = {}
    for _ in range(20 * count):
        spec = frame.detector(space.sample(rng))
        found.setdefault(digest(spec), spec)
        if len(found) == count:
            return list(found.values())
    raise UserError(f"the space gives only {len(found)} different networks, {count} are needed")


def kernels_of(spec: DetectorSpec, kernels: Kernels) -> set[Operation]:
    """The distinct kernels that a runtime runs for a detector."""
    return {part for operation in operations(spec, "folded") for part in kernels.of(operation)}


def informative_order(pool: list[DetectorSpec], kernels: Kernels) -> list[DetectorSpec]:
    """The pool, each next network the one whose unseen kernels are most common in the space.

    Stopping anywhere leaves the best table for the time spent.
    """
    contents = [kernels_of(spec, kernels) for spec in pool]
    frequency = Counter(kernel for content in contents for kernel in content)
    left, seen = set(range(len(pool))), set[Operation]()
    order: list[DetectorSpec] = []
    while left:
        best = max(left, key=lambda index: (sum(frequency[k] for k in contents[index] - seen), -index))
        left.remove(best)
        seen |= contents[best]
        order.append(pool[best])
    return order


def measure_table(settings: ProfileSettings, progress: Progress = print, runtime: Runtime | None = None) -> Path:
    """Time networks of the space until the limit, but as many as a table needs; fit it, write it beside what was measured.

    Raises UserError if the folder holds measurements of another device or runtime, or too few networks are asked for.
    """
    started = time.monotonic()
    runtime = runtime or open_runtime(settings.runtime, settings.threads, settings.batch)
    quick = settings.mode == "quick"
    limit = min(settings.time_limit_s, QUICK_SECONDS) if quick else settings.time_limit_s
    wanted = min(settings.networks, QUICK_NETWORKS) if quick else settings.networks
    store = MeasurementStore(settings.output, runtime, settings.changed_space)
    pool = settings.random_detectors(min(POOL, 4 * wanted), settings.seed)
    turns = zip_longest(*(informative_order(group, runtime.kernels) for group in pool))
    order = [spec for spec in chain.from_iterable(turns) if spec is not None][:wanted]
    done = {digest(item.spec) for item in store.measurements}
    longest = 0.0
    for number, spec in enumerate(order, 1):
        if digest(spec) in done:
            continue
        begun = time.monotonic()
        if begun - started + longest > limit * (1 - RESERVE) and len(store.measurements) >= FEWEST:
            progress(f"time limit of {limit:.0f} s reached after {len(store.measurements)} networks")
            break
        store.add(runtime.measure(spec, settings.repetitions))
        longest = max(longest, time.monotonic() - begun)
        last = store.measurements[-1]
        progress(f"network {number} of {wanted}: {last.ms:.2f} ms, spread {last.spread_percent:.1f} %")
    table, rows = build_table(store.measurements, runtime)
    after = runtime.after_network(settings.repetitions)
    path = write_measured(settings, runtime, table, rows, store.measurements, after, quick)
    progress(
        f"wrote {path}: {len(rows)} kernels of {len(store.measurements)} networks, and what follows them "
        f"(mean error {after.error_percent:g} %)"
    )
    return path


def write_measured(
    settings: ProfileSettings,
    runtime: Runtime,
    table: MeasuredRows,
    rows: Sequence[Row],
    measurements: Sequence[Measurement],
    after: PostProcess,
    quick: bool,
) -> Path:
    """Write the table, and what follows the network; without rows (runtimes that tell no kernels) it is a calibrated kernel
    model."""
    how = "kernels timed inside whole networks" if rows else "kernel model calibrated on whole networks"
    facts = runtime.provenance()
    times: dict[int, list[float]] = defaultdict(list)
    for item in measurements:
        times[item.spec.image_size].append(item.ms / runtime.batch)
    header = Header(
        name=settings.hardware,
        kind="measured" if rows else "kernel_model",
        device=runtime.device(),
        runtime=runtime.name,
        precision=runtime.precision,
        batch=runtime.batch,
        units="ms",
        provenance={
            "how": how + (", quick calibration" if quick else ""),
            "space": settings.changed_space,
            "networks": len(measurements),
            "median_ms": {str(side): float(f"{median(times[side]):.3g}") for side in sorted(times)},
            "repetitions": settings.repetitions,
            "spread_percent": round(sorted(item.spread_percent for item in measurements)[len(measurements) // 2], 1),
            **facts,
        },
        validation={},
        processor=str(facts.get("processor", runtime.device())),
        image_sizes=tuple(sorted(times)),
        map_sizes=map_sizes(op for item in measurements for op in operations(item.spec, "folded")),
    )
    write_table(settings.table_path, header, table.body(rows) | {"postprocess": after.body()})
    LatencyTable.load(settings.table_path)
    return settings.table_path


class MeasurementStore:
    """Measurements of one device and runtime in a folder, one JSON line each; survives being killed between lines."""

    def __init__(self, folder: Path, runtime: Runtime, space: Mapping[str, object]) -> None:
        self.path = folder / "measurements.jsonl"
        self.measurements: list[Measurement] = []
        identity = {
            "device": runtime.device(), "runtime": runtime.name, "precision": runtime.precision, "batch": runtime.batch,
            "space": dict(space), "graph": GRAPH,
        }  # fmt: skip
        marker = folder / "measurements.yaml"
        if marker.exists():
            found: Any = read_yaml(marker)
            for key, value in identity.items():
                if found.get(key) != value:
                    raise UserError(
                        f"{folder} holds measurements for {key} {found.get(key)!r}, not {value!r}: "
                        "choose another hardware= name or delete the folder"
                    )
            self.measurements = list(self._read())
            self._mend()
        else:
            write_atomic(marker, dump_yaml(identity))

    def _read(self) -> Iterator[Measurement]:
        if not self.path.exists():
            return
        for number, line in enumerate(self.path.read_text().splitlines(), 1):
            try:
                data = json.loads(line)
            except ValueError:
                continue
            where = f"{self.path}, line {number}"
            spec = from_dict(data["spec"])
            if not isinstance(spec, DetectorSpec):
                raise UserError(f"{where}: not a detector")
            rows = tuple(read_rows(data["rows"], where)) if data["rows"] else ()
            yield Measurement(spec, data["ms"], data["spread_percent"], rows)

    def _mend(self) -> None:
        """Drop the line that was being written when the run was killed."""
        if self.path.exists() and not (text := self.path.read_text()).endswith("\n"):
            write_atomic(self.path, text[: text.rfind("\n") + 1])

    def add(self, measurement: Measurement) -> None:
        """Keep a measurement, on disk too."""
        self.measurements.append(measurement)
        record = {
            "spec": to_dict(measurement.spec),
            "ms": round(measurement.ms, 5),
            "spread_percent": round(measurement.spread_percent, 2),
            "rows": [row.pack() for row in measurement.kernels],
        }
        with self.path.open("a") as stream:
            stream.write(json.dumps(record, separators=(",", ":")) + "\n")
