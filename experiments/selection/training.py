"""Trains the contestants, three seeds each, all by one recipe, and times their exported files in one session."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from filelock import FileLock

from experiments.detector_bench.training import bench_config, recipe_of, trained
from experiments.packed import read_packed, write_packed
from experiments.selection.contestants import Contestant
from experiments.selection.standings import SEEDS, selected_and_drawn, standings
from nas.commands.train import TrainCommand
from nas.spec import DetectorSpec, digest

PATH = Path(__file__).with_name("runs.jsonl.gz")
#: Epochs on every data set, whatever the bench takes.
EPOCHS = 30

Row = dict[str, Any]
#: A contestant, the seed, and the recipe of its training.
Job = tuple[Contestant, int, str]


def config_of(contestant: Contestant, seed: int, **more: Any) -> TrainCommand:
    """The bench's recipe at the contestants' image size and epochs."""
    given = {"image_size": contestant.image_size, "trainer.epochs": EPOCHS} | more
    return bench_config(contestant.data, seed, **given)


def key_of(row: Row) -> tuple[str, ...]:
    """What no two runs share."""
    return row["data"], row["digest"], str(row["seed"]), row["recipe"]


def wanted(
    contestants: Sequence[Contestant], sets: Sequence[str], rows: Sequence[Row] = (), pair_seeds: int = SEEDS, **more: Any
) -> list[Job]:  # fmt: skip
    """The trainings of the data sets, each once, seed by seed, so that every seed compares all.

    pair_seeds: how many seeds the chosen network and the best drawn one get where everybody is trained; val alone has told
    by then which one that is, so more seeds narrow the interval of the lead and choose nothing.
    """
    chosen = [one for one in contestants if one.data in sets]
    recipes = {one.data: recipe_of(config_of(one, 0, **more)) for one in chosen}
    jobs: dict[tuple[str, ...], Job] = {}

    def add(one: Contestant, seed: int) -> None:
        job = one, seed, recipes[one.data]
        jobs.setdefault(job_key(*job), job)  # a network may have two names

    for seed, one in product(range(SEEDS), chosen):
        add(one, seed)
    missing = {data for data, *_ in jobs.keys() - {key_of(row) for row in rows}}
    for data, trained_ones in standings(chosen, rows).items():
        if data not in missing and (pair := selected_and_drawn(trained_ones)):
            for seed, standing in product(range(SEEDS, pair_seeds), pair):
                add(standing.contestant, seed)
    return list(jobs.values())


def job_key(contestant: Contestant, seed: int, recipe: str) -> tuple[str, ...]:
    """`key_of` the row of a run that is still to come."""
    return contestant.data, contestant.digest, str(seed), recipe


def train_missing(
    contestants: Sequence[Contestant], sets: Sequence[str], table: Path, folder: Path, most: int = 0,
    shard: tuple[int, int] = (0, 1), pair_seeds: int = SEEDS,
    finished: Callable[[Contestant, int, Path], object] | None = None, **more: Any,
) -> int:  # fmt: skip
    """Train what the table lacks, at most `most` runs (0: all), each going on where it was stopped; returns what remains.

    shard (i, n): every n-th run from the i-th, for workers side by side. finished: sees each run's contestant, seed and
    folder before the folder is removed. pair_seeds: see `wanted`. more: options of the training beside the recipe.
    """
    rows = read_packed(table)
    done = {key_of(row) for row in rows}
    jobs = wanted(contestants, sets, rows, pair_seeds, **more)[shard[0] :: shard[1]]
    todo = [job for job in jobs if job_key(*job) not in done]
    for number, (one, seed, recipe) in enumerate(todo[: most or None], 1):
        place = folder / f"{one.data}-{one.digest.replace('@', '-')}-{seed}-{recipe}"
        row = {"data": one.data, "name": one.name, "family": one.family, "digest": one.digest, "seed": seed}
        row |= trained(config_of(one, seed, **more), one.model, place)
        if finished is not None:
            finished(one, seed, place)
        with FileLock(f"{table}.lock"):
            known = {key_of(old): old for old in [*read_packed(table), row]}
            write_packed(table, [known[key] for key in sorted(known)])
        shutil.rmtree(place)
        print(f"{number}/{len(todo)} {one.data} {one.name} seed {seed}: test AP {row['test_ap']:.3f}", flush=True)
    return max(0, len(todo) - most) if most else 0


def session_of(
    classes: int, image_size: int, threads: int = 1
) -> Callable[[Sequence[DetectorSpec | str]], list[float]]:
    """Times detectors as deployed ONNX files, in turns: median milliseconds of each; a file is made once."""
    from nas.deploy import load_runtime
    from nas.deploy.onnx_graph import export_onnx, set_metadata, write
    from nas.deploy.runtime import Metadata
    from nas.measure.artefact import time_in_turns
    from nas.measure.measurement import build_subject
    from nas.models.baselines import build_baseline

    folder = tempfile.TemporaryDirectory()
    names = tuple(f"class {index}" for index in range(classes))

    def exported(model: DetectorSpec | str) -> Path:
        path = Path(folder.name) / f"{model if isinstance(model, str) else digest(model)}.onnx"
        if not path.is_file():
            network = (
                build_baseline(model, classes, image_size).fuse() if isinstance(model, str) else build_subject(model)
            )
            graph = export_onnx(network, image_size)
            set_metadata(graph, Metadata(names, image_size, bool(getattr(network, "end_to_end", False))))
            write(graph, path)
        return path

    def session(models: Sequence[DetectorSpec | str]) -> list[float]:
        networks = [load_runtime(exported(model), threads=threads) for model in models]
        return [median(times) for times in time_in_turns(networks)]

    return session


def measure(contestants: Sequence[Contestant], classes: int) -> Row:
    """Milliseconds of all contestants of a data set in one session."""
    session = session_of(classes, contestants[0].image_size)
    times = session([one.model for one in contestants])
    return {"data": contestants[0].data, "threads": 1, "runtime": "ONNX Runtime, float32",
            "ms": {one.digest: round(ms, 4) for one, ms in zip(contestants, times, strict=True)}}  # fmt: skip
