"""One deployed file: its AP, the milliseconds of its stages and its memory, all of that very file and in a process of its own.

`measured_apart` starts this module as a process, which is told an `ArtefactJob` and tells what it `Measured`, as JSON: what a
runtime keeps, spoils or crashes ends with it, and its memory can be told from that of others.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from nas.data.sources import DataConfig, load_splits
from nas.errors import UserError
from nas.extensions import use
from nas.inference import PredictOptions
from nas.options import Count, Name, Seed, Threads, in_squares, read_object

if TYPE_CHECKING:
    from nas.deploy.parity import Agreement
    from nas.inference.predictor import Network

#: Turns in which networks are timed one after the other, so that a drift of the machine meets all alike, the runs of each
#: turn, and the pause between turns, against throttling.
TURNS, RUNS, PAUSE = 5, 12, 0.05
#: Frames before those that are timed.
WARM_UP = 3
#: What a runtime's own library takes is not the file's: it is loaded before memory is read.
LIBRARIES = {"onnx": "onnxruntime", "openvino": "openvino"}


@dataclass(frozen=True)
class ArtefactJob:
    """What a process is told: the file, how it runs, and on what it is measured.

    format and precision: two of nas.deploy.DEPLOYABLE; threads: of the CPU; scored_images: how many of the split are
    scored (None: all); timed_images: pictures on which stages are timed; checked: pictures on which a network of torch is
    compared with torch in float32; modules: to import first, as the detector's own blocks are from there.
    """

    file: Path
    format: Name
    precision: Name
    data: DataConfig
    split: Name
    device: Name | None = None
    threads: Threads = 1
    scored_images: Count | None = None
    timed_images: Count = 50
    batch_size: Count = 8
    options: PredictOptions = field(default_factory=PredictOptions)
    checked: tuple[Path, ...] = ()
    seed: Seed = 0
    modules: tuple[Name, ...] = ()


@dataclass(frozen=True)
class Interval:
    """Milliseconds: the median, and the quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Of one time or more."""
        low, _, high = quantiles(values if len(values) > 1 else [*values, *values], n=4, method="inclusive")
        return cls(*(round(value, 4) for value in (median(values), low, high)))


@dataclass(frozen=True)
class Stages:
    """Of one image: `network` alone, back to back, as latency tables time it; the others as frames follow one another, from
    pixels in memory to boxes, `frame` being all three stages there."""

    preprocess: Interval
    network: Interval
    postprocess: Interval
    frame: Interval


@dataclass(frozen=True)
class Parity:
    """How a deployed network compares with torch in float32: detections that torch has, the share found again, and the
    largest differences in score and in pixels."""

    pictures: int
    detections: int
    matched: float
    score_difference: float
    box_difference: float

    @classmethod
    def of(cls, found: Agreement) -> Parity:
        """What a comparison found."""
        return cls(found.images, found.detections, found.matched, found.score_difference, found.box_difference)


@dataclass(frozen=True)
class Measured:
    """What one file is worth. memory_mb: what the process held at its peak, while the file was loaded and ran one image,
    beyond what it held before (None: the system does not tell)."""

    ap: float
    ap50: float
    images: int
    milliseconds: Stages
    memory_mb: float | None
    parity: Parity | None = None


def time_in_turns(networks: Sequence[Network]) -> list[list[float]]:
    """Milliseconds of bare networks in one session: each one's median of every turn (batch 1)."""
    from nas.inference.evaluator import time_model

    times: list[list[float]] = [[] for _ in networks]
    for _ in range(TURNS):
        for own, network in zip(times, networks, strict=True):
            time.sleep(PAUSE)
            own.append(time_model(network, network.image_size, runs=RUNS)["median"])
    return times


def measured_apart(job: ArtefactJob) -> Measured:
    """What `measure` finds, in a process of its own; raises UserError in one line for whatever ends it."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    environment |= {"OMP_NUM_THREADS": str(job.threads)}
    line = [sys.executable, "-m", "nas.measure.artefact"]
    told = json.dumps(asdict(job), default=str)
    done = subprocess.run(line, input=told, env=environment, capture_output=True, text=True)
    answer: Any = None
    with suppress(ValueError, IndexError):
        answer = json.loads(done.stdout.splitlines()[-1])
    if isinstance(answer, dict) and "error" in answer:
        raise UserError(str(answer["error"]))
    if done.returncode < 0:
        raise UserError(f"its process was killed by signal {-done.returncode}, as happens when memory runs out")
    if done.returncode or not isinstance(answer, dict):
        raise UserError(f"its process failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
    return read_object(Measured, answer, "what was measured:")


def measure(job: ArtefactJob) -> Measured:
    """Load the file, then: memory, milliseconds, AP. Raises UserError for a file or data that cannot be used."""
    import torch

    from nas.inference.evaluator import evaluate
    from nas.inference.pictures import open_pictures
    from nas.inference.predictor import Predictor

    use(job.modules)
    torch.set_num_threads(job.threads)
    with suppress(ImportError):
        importlib.import_module(LIBRARIES.get(job.format, "torch"))
    data = replace(job.data, check="labels") if job.data.mode == "strict" else job.data
    scored = load_splits(data, (job.split,))[0][job.split]
    if job.scored_images is not None:
        scored = scored.subset(range(min(job.scored_images, len(scored))))
    network, memory_mb = _loaded(job)
    resize = in_squares(job.options.resize or data.resize or network.resize)  # every format sees the same
    predictor = Predictor(network, replace(job.options, resize=resize))
    paths = [record.path for record in scored.records[: job.timed_images + WARM_UP]]
    times = predictor.time_frames(open_pictures(paths), WARM_UP if len(paths) > WARM_UP else 0)
    times["network"] = time_in_turns([network])[0]
    batch = 1 if job.format == "torch_compile" else job.batch_size  # another batch would be compiled anew
    chosen = {name: getattr(job.options, name) for name in _LIMITS}
    found = evaluate(network, scored, network.image_size, batch, resize=resize, **chosen)
    stages = Stages(**{name: Interval.of(values) for name, values in times.items()})
    parity = _compared_with_torch(job, network) if job.checked else None
    return Measured(round(found.ap, 6), round(found.ap50, 6), found.images, stages, memory_mb, parity)


_LIMITS = ("score_threshold", "iou_threshold", "max_detections", "max_candidates")


def _loaded(job: ArtefactJob) -> tuple[Network, float | None]:
    """The network of a job, and what loading and running it took at most, in megabytes."""
    import torch

    from nas.deploy import load_runtime
    from nas.memory import peak_memory, start_peak

    place = (job.device or "cpu") if job.format.startswith("torch") else "cpu"
    before = 0.0 if place.startswith("cuda") else start_peak()
    network: Network = (
        _torch(job, job.precision, job.format == "torch_compile")
        if job.format.startswith("torch")
        else load_runtime(job.file, job.device, job.threads)
    )
    images = torch.zeros(1, 3, network.image_size, network.image_size)
    with torch.inference_mode():
        for _ in range(WARM_UP):
            network(images)
    after = peak_memory(place)
    return network, None if before is None or after is None else round(after - before, 2)


def _torch(job: ArtefactJob, precision: str, compiled: bool) -> Network:
    from nas.deploy.variants import TorchVariant
    from nas.models.checkpoint import load_checkpoint

    return TorchVariant(load_checkpoint(job.file).fuse(), job.device, precision, compiled).eval()


def _compared_with_torch(job: ArtefactJob, network: Network) -> Parity:
    """Parity of a variant of torch with torch in float32; raises UserError where it finds other things."""
    from nas.deploy import ExportSettings
    from nas.deploy.export import read_inputs
    from nas.deploy.parity import TOLERANCES, verify

    settings = ExportSettings(check_images=len(job.checked), images="the check", seed=job.seed)
    inputs = read_inputs(settings, network.image_size, list(job.checked), network.resize)[: len(job.checked)]
    plain: Callable[..., Any] = _torch(job, "fp32", False)
    found = verify(plain, network, inputs, TOLERANCES[job.precision], end_to_end=network.end_to_end)
    if found.problem:
        raise UserError(f"it differs from torch in float32: on {found.images} pictures {found.problem}")
    return Parity.of(found)


def main() -> None:
    """Measure what standard input tells, and print it as the last line."""
    try:
        answer: dict[str, object] = asdict(measure(read_object(ArtefactJob, json.loads(sys.stdin.read()), "job:")))
    except UserError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
