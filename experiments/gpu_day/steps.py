"""What only a GPU can show, in the order of its worth: each step a command of its own, what it leaves, and what is read of it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from nas.commands.benchmark_files import Benchmark, read_row, verdict_lines
from nas.errors import UserError
from nas.files import read_json, read_yaml
from nas.training.hooks import read_epochs

#: Reads the folder of a step: what came out, a sentence each.
Reader = Callable[[Path], list[str]]
#: The detector that every step is about; `nas.train` makes it in the folder of `train`.
MODEL, CHECKPOINT = "damo-yolo-t", "train/best.safetensors"
TESTS = ("tests/deploy", "tests/inference", "tests/training/test_gpu_habits.py", "tests/training/test_batch_size.py")


@dataclass(frozen=True)
class Step:
    """One command: its module and words ({here}: the folder of the step, {day}: that of all), minutes that it is reckoned at.

    dry: words that replace those of the same key, or come beside them, where it is tried on the CPU; resume: whether a folder
    with a config.yaml goes on by resume=; elastic: takes what time is left, as minutes=. needs: the file of an earlier step
    without which it cannot run.
    """

    name: str
    why: str
    minutes: float
    module: str
    words: tuple[str, ...]
    dry: tuple[str, ...] = ()
    read: Reader = lambda place: []
    resume: bool = False
    elastic: bool = False
    needs: str = ""

    def command(self, day: Path, minutes: float, dry: bool) -> list[str]:
        """Module and words: of a run that goes on where it has begun."""
        here = day / self.name
        if self.resume and (here / "config.yaml").is_file():
            return [self.module, f"resume={here}"]
        words = list(self.words)
        if dry:
            keys = {word.partition("=")[0] for word in self.dry}
            words = [word for word in words if word.partition("=")[0] not in keys] + list(self.dry)
        if self.elastic and not dry:
            words.append(f"minutes={max(minutes, 0.1):.1f}")
        return [self.module, *(word.replace("{here}", str(here)).replace("{day}", str(day)) for word in words)]


def steps(data: str) -> tuple[Step, ...]:
    """All steps, the worthiest first; data: a name of conf/data."""
    run, quiet = "hydra.run.dir={here}", ("progress=false", "test=false")
    small = ("device=cpu", "image_size=64", "trainer.epochs=1", "trainer.batch_size=8", "trainer.workers=0",
             "trainer.compile=false", "model=damo-yolo-ns")  # fmt: skip
    train = (f"model={MODEL}", f"data={data}", "trainer=cpu_small", "augmentation=light", "device=cuda", "image_size=640",
             "trainer.batch_size=auto", "trainer.evaluate_every=5", run, *quiet)  # fmt: skip
    runtime = "tensorrt" if importlib.util.find_spec("tensorrt") else "cuda"
    table = ("hardware=gpu_day", "output={day}/profile", f"runtime={runtime}", "image_size=640")
    few = ("runtime=onnxruntime", "image_size=64", "networks=4", "validation_networks=5", "repetitions=3")
    return (
        Step("train", "a training in mixed precision with the largest batch: throughput, memory, AP", 5, "nas.train",
             (*train, "trainer.epochs=10"), small, _training, resume=True),
        Step("benchmark", "every format and precision on this GPU: parity, AP, milliseconds; TensorRT engines", 6,
             "nas.benchmark", (f"model={{day}}/{CHECKPOINT}", f"data={data}", "device=cuda", run, "progress=false",
                               "formats=[torch,torch_compile,onnx,tensorrt]", "precisions=[fp32,bf16,fp16,int8]"),
             ("device=null", "formats=[onnx,tensorrt]", "precisions=[fp32]", "scored_images=4", "timed_images=2",
              "check_images=2"), _benchmark, resume=True, needs=CHECKPOINT),
        Step("tests", "the tests of deployment, prediction and memory, where torch finds a GPU", 3, "pytest",
             ("-q", "-n0", "-m", "not slow", *TESTS), ("--collect-only",), _tests),
        Step("profile", "a latency table of this GPU for searches", 4, "nas.profile", (*table, "time_limit_s=210"), few,
             _table),
        Step("validate", "the error of that table on networks that it has not seen", 2, "nas.profile",
             (*table, "mode=validate"), few, _table, needs="profile/gpu_day.json"),
        Step("compile", "the same training compiled: throughput", 3, "nas.train",
             (*train, "trainer.epochs=3", "trainer.compile=true"), small, _training, resume=True),
        Step("rows", "the rows of the report's tables that wait for a GPU", 1, "experiments.run",
             ("all", "scale=gpu", "output={here}"), ("scale=tiny", "minutes=0.05"), _rows, elastic=True),
    )  # fmt: skip


def chosen(names: Sequence[str], data: str) -> tuple[Step, ...]:
    """The steps of these names, all without any; raises UserError for a name that is none."""
    known = {step.name: step for step in steps(data)}
    for name in names:
        if name not in known:
            raise UserError(f"there is no step {name!r}; there are {', '.join(known)}")
    return tuple(step for name, step in known.items() if not names or name in names)


def _training(place: Path) -> list[str]:
    last = read_epochs(place)[-1]
    config: Any = read_yaml(place / "config.yaml")
    told = [f"batch {config['trainer']['batch_size']}; val AP {100 * last['ap']:.1f} at epoch {last['epoch']:g}"]
    for name, unit in (("images_per_second", "images a second"), ("memory_mb", "MiB at the peak")):
        values = _scalars(place, f"speed/{name}")
        told += [f"{median(values):.0f} {unit}, the median of {len(values)} epochs"] if values else []
    return told


def _scalars(place: Path, name: str) -> list[float]:
    """The values that a training left in its TensorBoard events."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(place / "tensorboard")).Reload()
    return [event.value for event in events.Scalars(name)] if name in events.Tags()["scalars"] else []


def _benchmark(place: Path) -> list[str]:
    rows = [read_row(path) for path in sorted((place / "rows").glob("*.json"))]
    rows.sort(key=lambda row: (row.format, row.precision) != ("torch", "fp32"))
    return verdict_lines(Benchmark(place, place.name, "the test split", tuple(rows)))


def _tests(place: Path) -> list[str]:
    lines = (place / "log.txt").read_text(errors="replace").strip().splitlines()
    return lines[-1:]


def _table(place: Path) -> list[str]:
    path = place.parent / "profile" / "gpu_day.json"
    head = read_json(path)
    told = head.get("validation") or "not validated yet"  # type: ignore[attr-defined]
    return [f"{path}: {told if isinstance(told, str) else json.dumps(told)}"]


def _rows(place: Path) -> list[str]:
    lines = (place / "log.txt").read_text(errors="replace").strip().splitlines()
    return [line for line in lines if "runs" in line][-2:]
