"""Trains the detectors of the bench, run by run, with the project's own trainer: one recipe a data set."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.detector_bench.networks import Network
from experiments.detector_bench.table import Run, add_runs, load
from nas.commands.train import TrainCommand, task_of
from nas.config import compose_config
from nas.measure import cpu_facts
from nas.spec import DetectorSpec

if TYPE_CHECKING:
    from nas.data.dataset import DetectionData
    from nas.training.run import TrainingResult
    from nas.training.task import TrainingTask

#: Image size and epochs of each data set, fixed by the pilot (README), in the order of training.
RECIPES = {"cards": (224, 30), "bccd": (160, 30), "aquarium": (192, 24)}
#: What all share, over conf/trainer/cpu_small.yaml and conf/augmentation/light.yaml; the precision is the processor's.
OPTIONS: dict[str, Any] = {
    "trainer": "cpu_small",
    "augmentation": "light",
    "trainer.workers": 0,
    "trainer.channels_last": True,
    "trainer.evaluate_every": 2,
    "trainer.schedule.tail_epochs": 0,
    "augmentation.closing_epochs": 5,
    "device": "cpu",
}


#: What a run takes over from its network.
OF_THE_NETWORK = (
    "name", "family", "space", "score", "band_ms", "latency_ms", "table", "digest", "spec", "scores", "counts",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job:
    """A network to be trained on a data set with a seed."""

    network: Network
    data: str
    seed: int

    @property
    def key(self) -> str:
        """Sixteen hex digits by which runs are dealt to workers and named on disk."""
        text = f"{self.data} {self.network.digest} {self.seed}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def wanted(networks: Sequence[Network], data: str, seeds: int, every: bool, names: Sequence[str] = ()) -> list[Job]:
    """Runs of a data set in the order of the networks: all of them, or the shared ones, the repeated ones with more seeds than
    the first; or the named ones, with all seeds."""
    if names:
        return [Job(network, data, seed) for network in networks if network.name in names for seed in range(seeds)]
    chosen = [network for network in networks if every or network.shared]
    return [Job(network, data, seed) for network in chosen for seed in range(seeds if network.repeated else 1)]


def dealt(jobs: Sequence[Job], shard: tuple[int, int]) -> list[Job]:
    """Share (i, n) of the runs, by their keys: the same on every machine and day."""
    index, count = shard
    return [job for job in jobs if int(job.key, 16) % count == index]


def bench_config(data: str, seed: int, **more: Any) -> TrainCommand:
    """The training of a data set as `python -m nas.train` would compose it."""
    image_size, epochs = RECIPES[data]
    own = {"data": data, "seed": seed, "image_size": image_size, "trainer.epochs": epochs}
    given = OPTIONS | own | {"trainer.precision": precision_here()} | more
    return compose_config("train", TrainCommand, given)


def precision_here() -> str:
    """bf16 on processors with such arithmetic, twice as fast there; fp32 on others, which take eight times as long in bf16."""
    import torch

    known = torch.cpu.get_capabilities()
    return "bf16" if known.get("avx512_bf16") or known.get("amx_bf16") else "fp32"


def recipe_of(config: TrainCommand) -> str:
    """Eight hex digits of what decides a result besides network, data and seed; not of the precision, see the README's pilot."""
    augmentation = {"closing_affine": False} | config.augmentation.decisive()
    facts = [config.trainer.decisive() | {"precision": "any"}, augmentation, config.image_size]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:8]


def train_missing(jobs: Sequence[Job], table: Path, folder: Path, most: int = 0, **more: Any) -> int:
    """Train what the table lacks, at most `most` runs (0: all); returns how many remain.

    Each run has a folder of its own below `folder`, goes on where it was interrupted, and is removed when the table holds
    it. more: options of the training beside the recipe, which give it another digest.
    """
    recipes = {data: recipe_of(bench_config(data, 0, **more)) for data in {job.data for job in jobs}}
    done = {run.key for run in load(table)} if table.is_file() else set()
    todo = [job for job in jobs if (job.data, job.network.digest, job.seed, recipes[job.data]) not in done]
    for number, job in enumerate(todo[: most or None], 1):
        run = train_one(job, folder / f"{job.key}-{recipes[job.data]}", **more)
        add_runs(table, [run])
        shutil.rmtree(folder / f"{job.key}-{recipes[job.data]}")
        print(
            f"{number}/{len(todo)} {job.data} {job.network.name} seed {job.seed}: val AP {run.val_ap:.3f}, test AP "
            f"{run.test_ap:.3f} in {run.seconds:.0f} s ({run.cpu_seconds:.0f} s of CPU)",
            flush=True,
        )
    return max(0, len(todo) - most) if most else 0


def train_one(job: Job, folder: Path, **more: Any) -> Run:
    """Train one network of the bench, or go on with it, and score its last averaged weights on the test split."""
    config = bench_config(job.data, job.seed, **more)
    known = {name: getattr(job.network, name) for name in OF_THE_NETWORK}
    return Run(data=job.data, seed=job.seed, **trained(config, job.network.spec, folder), **known)


def trained(config: TrainCommand, model: DetectorSpec | str, folder: Path) -> dict[str, Any]:
    """Train a network, or go on with it; what of a `Run` a training tells, the last averaged weights scored on test."""
    import torch

    from nas.training.run import run_training
    from nas.training.state import resumable

    task, test, _ = task_of(config)
    task.model = model
    resume = resumable(folder)
    if folder.exists() and not resume:
        shutil.rmtree(folder)
    sittings = _sittings(folder)
    started, used = time.perf_counter(), cpu_seconds()
    result = run_training(task, folder, resume=resume, progress=False)
    scores = test_scores(task, result, test if test is not None else task.val)
    return {
        "recipe": recipe_of(config),
        "precision": str(config.trainer.precision),
        "image_size": int(config.image_size or 0),
        "epochs": config.trainer.epochs,
        "curve": curve_of(folder),
        "test_ap": round(float(scores.ap), 5),
        "test_ap50": round(float(scores.ap50), 5),
        "seconds": round(result.seconds if sittings > 1 else time.perf_counter() - started, 1),
        "cpu_seconds": round(cpu_seconds() - used, 1),
        "sittings": sittings,
        "machine": cpu_facts() | {"torch": torch.__version__, "threads": torch.get_num_threads()},
    }


def test_scores(task: TrainingTask, result: TrainingResult, test: DetectionData | None) -> Any:
    """Scores of the last averaged weights, their BatchNorm statistics measured as for a validation."""
    from nas.inference.evaluator import evaluate
    from nas.models.checkpoint import load_checkpoint
    from nas.training.averaging import NormStatistics

    assert test is not None
    model = load_checkpoint(result.last)
    options, batch = task.options, task.options.step_images
    if options.ema.norm_images:
        model = NormStatistics(task.train, model.image_size, batch, options.ema.norm_images)(model)
    return evaluate(model.fuse(), test, model.image_size, batch_size=batch)


def curve_of(folder: Path) -> tuple[tuple[int, float, float], ...]:
    """(epoch, AP, AP50) of every validation of a training."""
    from nas.training.hooks import read_epochs

    return tuple((int(row["epoch"]), round(row["ap"], 5), round(row["ap50"], 5)) for row in read_epochs(folder))


def cpu_seconds() -> float:
    """Processor time of this process so far."""
    return time.process_time()


def _sittings(folder: Path) -> int:
    """How often this run was begun, counted in its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sittings"
    with path.open("a") as file:
        file.write("x")
        file.flush()
        os.fsync(file.fileno())
    return path.stat().st_size
