"""Trains every network of the experiment under one short recipe, row by row, resumably."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.data import data_config
from experiments.scorer_truth.networks import Network
from nas.errors import UserError
from nas.files import write_atomic

COLUMNS = ("name", "seed", "ap50", "ap", "epochs", "seconds", "device", "recipe")


@dataclass(frozen=True)
class Recipe:
    """One recipe for all networks: what decides the ranking besides the network and the seed. The defaults made results.csv.

    data: the folder of BCCD, where it is not where conf/data/bccd.yaml looks for it. Light augmentation and a higher
    rate than for long trainings; no early stop, the last averaged weights are judged.
    """

    data: str = ""
    image_size: int = 160
    epochs: int = 20
    batch_size: int = 16
    optimizer: str = "adamw"
    lr: float = 0.002
    weight_decay: float = 0.05
    warmup_epochs: float = 3.0
    closing_epochs: int = 5
    ema_decay: float = 0.998
    ema_ramp: float = 100.0
    norm_images: int = 96
    precision: str = "bf16"

    @property
    def digest(self) -> str:
        """Eight hex digits that tell results of one recipe from those of another (the data's place does not matter)."""
        facts = {key: value for key, value in asdict(self).items() if key != "data"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]

    def __str__(self) -> str:
        return (
            f"{self.image_size} pixels, {self.epochs} epochs of batch {self.batch_size}, {self.optimizer} at {self.lr:g}, "
            f"precision {self.precision}, recipe {self.digest}"
        )


@dataclass(frozen=True, slots=True)
class Result:
    """One trained network."""

    name: str
    seed: int
    ap50: float
    ap: float


def wanted(networks: list[Network], repeated: int, seeds: int) -> list[tuple[Network, int]]:
    """Seed 0 of every network, with the other seeds of `repeated` evenly chosen ones spread between them.

    A run that is cut short has then some of everything.
    """
    step = max(1, len(networks) // max(repeated, 1))
    chosen = {network.name for network in networks[::step][:repeated]}
    plan: list[tuple[Network, int]] = []
    for network in networks:
        plan += [(network, seed) for seed in range(seeds if network.name in chosen else 1)]
    return plan


def read_results(path: Path, recipe: Recipe | None = None) -> list[Result]:
    """The finished rows (of one recipe, if given); a torn last line is left out."""
    if not path.is_file():
        return []
    rows = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row.get("recipe") and (recipe is None or row["recipe"] == recipe.digest):
                try:
                    rows.append(Result(row["name"], int(row["seed"]), float(row["ap50"]), float(row["ap"])))
                except ValueError as error:
                    raise UserError(f"{path} has a damaged row: {row}") from error
    return rows


def append_result(path: Path, row: dict[str, Any]) -> None:
    """Add one row in a single write, so that parallel workers do not mix."""
    if not path.exists():
        write_atomic(path, ",".join(COLUMNS) + "\n")
    with path.open("ab", buffering=0) as file:
        file.write((",".join(str(row[name]) for name in COLUMNS) + "\n").encode())


def train_missing(
    networks: list[Network],
    recipe: Recipe,
    results: Path,
    repeated: int = 5,
    seeds: int = 3,
    minutes: float = 0.0,
    shard: tuple[int, int] = (0, 1),
    device: str = "auto",
    workers: int = 0,
) -> int:
    """Train what has no row yet, until the minutes are used up (0: no limit); returns how many rows remain.

    shard (i, n): every n-th run from the i-th, for workers side by side. No run is begun that would not fit, judged by
    the longest so far. Each run lives in a folder of its own, is resumed if interrupted, and is removed when its row
    exists.
    """
    start, longest = time.monotonic(), 0.0
    done = {(row.name, row.seed) for row in read_results(results, recipe)}
    mine = wanted(networks, repeated, seeds)[shard[0] :: shard[1]]
    todo = [(network, seed) for network, seed in mine if (network.name, seed) not in done]
    for number, (network, seed) in enumerate(todo):
        used = time.monotonic() - start
        if minutes and (used + longest) > minutes * 60:
            print(f"time is used up: {len(todo) - number} of {len(todo)} runs of this worker remain", flush=True)
            return len(todo) - number
        began = time.monotonic()
        run = results.parent / "runs" / f"{network.name}_{seed}"
        row = train_one(network, seed, recipe, run, device, workers)
        append_result(results, row)
        longest = max(longest, time.monotonic() - began)
        place = f"{number + 1}/{len(todo)} {network.name} seed {seed}"
        print(f"{place}: AP50 {row['ap50']} in {row['seconds']} s", flush=True)
    return 0


def train_one(
    network: Network, seed: int, recipe: Recipe, folder: Path, device: str = "auto", workers: int = 0
) -> dict[str, Any]:
    """Train one network and score its averaged weights on the validation images; the row of the results."""
    from nas.augment.pipeline import Augmentation
    from nas.data.sources import load_splits
    from nas.frame import Frame
    from nas.training.options import EmaOptions, OptimizerOptions, ScheduleOptions, TrainerOptions
    from nas.training.run import run_training
    from nas.training.state import resumable
    from nas.training.task import TrainingTask

    config = data_config("bccd")
    config.check = "labels"
    if recipe.data:
        config.root = recipe.data
    splits, _ = load_splits(config, ("train", "val"))
    options = TrainerOptions(
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        workers=workers,
        cache="ram",
        precision=recipe.precision,
        evaluate_every=recipe.epochs,
        optimizer=OptimizerOptions(name=recipe.optimizer, lr=recipe.lr, weight_decay=recipe.weight_decay),
        schedule=ScheduleOptions(warmup_epochs=recipe.warmup_epochs, tail_epochs=0.0),
        ema=EmaOptions(recipe.ema_decay, recipe.ema_ramp, recipe.norm_images),
    )
    augmentation = Augmentation(
        mosaic=0.5,
        rotation=0.0,
        scale=(0.6, 1.4),
        shear=0.0,
        translation=0.1,
        mixup=0.0,
        sada=False,
        hue=0.015,
        saturation=0.5,
        value=0.3,
        closing_epochs=recipe.closing_epochs,
    )
    detector = Frame(num_classes=len(splits["train"].classes), image_size=recipe.image_size).detector(network.backbone)
    task = TrainingTask(detector, splits["train"], splits["val"], options, augmentation, seed=seed, device=device)
    began = time.perf_counter()
    resume = resumable(folder)
    if folder.exists() and not resume:
        shutil.rmtree(folder)
    run_training(task, folder, resume=resume, progress=False)
    numbers = last_validation(folder)
    seconds = time.perf_counter() - began
    shutil.rmtree(folder)
    return {
        "name": network.name,
        "seed": seed,
        "ap50": f"{numbers['ap50']:.5f}",
        "ap": f"{numbers['ap']:.5f}",
        "epochs": recipe.epochs,
        "seconds": round(seconds, 1),
        "device": device,
        "recipe": recipe.digest,
    }


def last_validation(folder: Path) -> dict[str, float]:
    """AP and AP50 at the end of a training. Raises UserError if it never validated."""
    from nas.training.hooks import read_epochs

    rows = read_epochs(folder)
    if not rows:
        raise UserError(f"{folder} holds no validation")
    return {name: float(rows[-1][name]) for name in ("ap", "ap50")}
