"""What `python -m nas.select` is told, and the selection that it makes in a folder: propose, plan, train, decide, deploy."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from filelock import FileLock, Timeout

from nas.augment.pipeline import Augmentation
from nas.commands.search import limits_of
from nas.commands.select_files import (
    SelectionResult,
    read_finalists,
    verdict,
    write_finalists,
    write_selection,
)
from nas.commands.select_screen import Screen
from nas.config import continued, store_settings
from nas.cost.budget import Budget
from nas.cost.latency import LatencyTable
from nas.cost.table_file import DEFAULT_TABLE
from nas.data.dataset import DetectionData
from nas.data.sources import DataConfig, load_splits
from nas.errors import UserError
from nas.files import write_atomic
from nas.frame import Frame, NeckOptions
from nas.models.checkpoint import read_header
from nas.options import CountOrNone, ImageSize, Name, Seed, Threads
from nas.searchers.optuna import open_storage
from nas.selection.deployment import deploy
from nas.selection.halving import Halving
from nas.selection.portfolio import Finalist, Proposal
from nas.selection.rungs import Plan, make_plan, plan_of_minutes
from nas.selection.trainings import Trainings, epoch_seconds
from nas.training.cores import usable_cores
from nas.training.options import TrainerOptions
from nas.training.run import TrainingTask

#: What may differ between a run and its continuation.
FREE = ("resume", "workers", "progress", "storage", "lease")
#: Seconds that export, measuring and test of one finalist are reckoned at.
DEPLOYING = 40.0


@dataclass(frozen=True, kw_only=True)
class SelectCommand:
    """`budget`, hardware and neck as in a search; data, trainer and augmentation as in a training.

    candidates: how many networks are trained in the first rung; epochs: of a whole training, or minutes: as many as fit
    into them, which is reckoned once from the time of a few batches; seeds: trainings of every network of the last rung;
    factor: of the networks of a rung one in `factor` goes on. tolerance: share of the budget that a network may leave
    unused; evaluations: of each search for candidates that proves nothing. weights: a checkpoint whose entries that fit are
    the start of every training. workers: processes of this machine; storage: of
    Optuna, for several machines that share the folder (None: a file in it); lease: seconds after which a worker without a
    sign of life loses its training. resume: the folder of a selection that goes on, or that this process joins, alone.
    """

    budget: dict[str, Any] = field(default_factory=dict)
    hardware: Name = DEFAULT_TABLE
    neck: NeckOptions = field(default_factory=NeckOptions)
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    image_size: ImageSize = 640
    candidates: Annotated[int, Ge(2), Le(1000)] = 16
    epochs: CountOrNone = 0
    minutes: Annotated[float, Gt(0), Le(1e6)] | None = None
    seeds: Annotated[int, Ge(1), Le(100)] = 1
    factor: Annotated[float, Ge(2), Le(10)] = 3.0
    tolerance: Annotated[float, Ge(0.005), Le(0.5)] = 0.03
    evaluations: Annotated[int, Ge(100), Le(10_000_000)] = 4000
    weights: Name | None = None
    seed: Seed = 0
    device: str = "auto"
    workers: Threads = 1
    storage: Name | None = None
    lease: Annotated[float, Ge(1), Le(1e6)] = 30.0
    resume: Name | None = None
    progress: bool = True


def select_in(command: SelectCommand, folder: Path, given: Sequence[str] = ()) -> SelectionResult:
    """Select in `folder`, or go on with (or join) the selection to resume; `given`: the settings of the command line.

    Raises UserError for whatever cannot be done, before anything is trained; KeyboardInterrupt after a signal, with
    everything saved.
    """
    if command.resume is not None:
        folder = Path(command.resume)
        command = continued(command, given, FREE)
    limits_of(command.budget)
    if (command.minutes is None) == (not command.epochs):
        raise UserError("say how long to train: minutes=60, or epochs=30 of a whole training (not both)")
    if command.weights is not None:
        read_header(command.weights)  # refused now and not after the search for candidates
    selection = Selection(command, folder)
    if command.resume is None:
        if (folder / "finalists.json").exists():
            raise UserError(f"{folder} already holds a selection: resume={folder} goes on with it")
        store_settings(command, folder, FREE)
    try:
        result = selection.run()
    except KeyboardInterrupt:
        print(f"stopped; go on with: python -m nas.select resume={folder}", flush=True)
        raise
    for line in verdict(result):
        print(line, flush=True)
    print(f"report: {folder / 'report.html'}", flush=True)
    return result


class Selection:
    """One selection in its folder; every step that was done is read back from there."""

    def __init__(self, command: SelectCommand, folder: Path) -> None:
        self.command, self.folder = command, folder
        self.budget = Budget.of(limits_of(command.budget))
        self.table = LatencyTable.load(command.hardware)
        self.storage = open_storage(command.storage) if command.storage else None
        splits, self.report = load_splits(command.data)
        for split in ("train", "val"):
            if split not in splits:
                raise UserError(
                    f"data {command.data.name} has no {split} split: set data.{split}.images and annotations"
                )
        self.splits: dict[str, DetectionData] = splits
        neck = replace(command.neck, num_classes=splits["train"].num_classes)
        self.proposal = Proposal(
            self.budget, command.hardware, Frame.of(neck, command.image_size), command.candidates, command.tolerance,
            command.evaluations, command.seed,
        )  # fmt: skip

    def run(self) -> SelectionResult:
        """Propose, plan, train and decide, each unless it is done already."""
        command, folder = self.command, self.folder
        folder.mkdir(parents=True, exist_ok=True)
        with Screen(command.progress) as screen:
            for line in self.report.summary() if command.progress and command.resume is None else ():
                screen.say(line)
            with FileLock(folder / ".start.lock"):
                finalists = self._finalists(screen)
                plan = self._plan(finalists, screen)
                alone = self._alone()
                storage = self.storage or open_storage(f"sqlite:///{folder / 'study.db'}")
            task = self._task(plan)
            screen.show_plan(plan, finalists, self.table.name)
            trainings = Trainings(task, folder / "candidates")
            halving = Halving(plan, storage, self._identity(finalists, plan), command.seed, command.lease, trainings)
            if alone and command.storage is None:
                halving.release()
            helpers = self._helpers() if alone else []
            try:
                results = halving.run(finalists, screen.show_standing, screen.show_rung)
            finally:
                for helper in helpers:
                    helper.terminate()
                for helper in helpers:
                    helper.wait()
        curves = {finalist.digest: trainings.curve(finalist, command.seed) for finalist in finalists}
        result = SelectionResult(folder, self.proposal, plan, finalists, tuple(results), curves)
        return self._decided(result, trainings) if alone else result

    def _finalists(self, screen: Screen) -> tuple[Finalist, ...]:
        path = self.folder / "finalists.json"
        if path.is_file():
            return read_finalists(path)
        finalists = self.proposal.finalists(screen.say)
        write_finalists(path, finalists)
        return finalists

    def _plan(self, finalists: Sequence[Finalist], screen: Screen) -> Plan:
        """The stored plan, or a new one: of the epochs that were asked for, or of those that fit into the minutes."""
        command, path = self.command, self.folder / "plan.json"
        if path.is_file():
            return Plan.from_dict(json.loads(path.read_text(encoding="utf-8")))
        count = len(finalists)
        if command.minutes is None:
            plan = make_plan(count, command.epochs, command.factor, command.seeds)
        else:
            screen.say("timing a few batches")
            seconds = epoch_seconds(self._task(make_plan(count, 2)), finalists)
            fixed = DEPLOYING * (2 + command.seeds)
            plan = plan_of_minutes(command.minutes, seconds, fixed, count, factor=command.factor, seeds=command.seeds)
            screen.say(f"an epoch of one network takes {seconds:.1f} s: {plan.cost * seconds / 3600:.1f} h of training")
        write_atomic(path, json.dumps(plan.to_dict(), indent=1) + "\n")
        return plan

    def _task(self, plan: Plan) -> TrainingTask:
        """The training of every finalist, its network apart."""
        command = self.command
        options = replace(command.trainer, epochs=plan.epochs, minutes=None)
        if command.workers > 1 and options.threads is None:
            options = replace(options, threads=max(1, usable_cores() // command.workers))
        return TrainingTask(
            "", self.splits["train"], self.splits["val"], options, command.augmentation,
            image_size=command.image_size, seed=command.seed, device=command.device, weights=command.weights,
        )  # fmt: skip

    def _identity(self, finalists: Sequence[Finalist], plan: Plan) -> str:
        """What the studies of this selection are called."""
        facts = [[finalist.digest for finalist in finalists], plan.to_dict(), self.splits["train"].digest(),
                 self.splits["val"].digest(), self.command.trainer.decisive(), self.command.augmentation.decisive(),
                 self.command.image_size, self.command.seed, self.command.weights]  # fmt: skip
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]

    def _alone(self) -> bool:
        """Whether no other process of this machine works on the selection; holds the sign of this one until it ends."""
        alone = True
        for number in range(1000):
            lock = FileLock(self.folder / f".worker-{number}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                alone = False
                continue
            self._sign = lock
            return alone
        return False

    def _helpers(self) -> list[subprocess.Popen[bytes]]:
        """The other workers of this machine."""
        own = [
            "progress=false",
            f"lease={self.command.lease}",
            *([f"storage={self.command.storage}"] * bool(self.command.storage)),
        ]
        line = [sys.executable, "-m", "nas.select", f"resume={self.folder}", *own]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = {"OMP_NUM_THREADS": str(max(1, usable_cores() // self.command.workers))} | os.environ
        return [subprocess.Popen(line, env=environment, **quiet) for _ in range(self.command.workers - 1)]  # type: ignore[call-overload]

    def _decided(self, result: SelectionResult, trainings: Trainings) -> SelectionResult:
        """The selection with its winner, runner-up and best drawn network deployed, everything written."""
        shown = dict.fromkeys((*result.ranking[:2], result.drawn))
        chosen = [
            (finalist, standing.seed, trainings.place(finalist, standing.seed) / "best.safetensors")
            for finalist in shown
            for standing in result.rungs[-1].standings
            if standing.finalist == finalist
        ]
        data = self.splits.get("test", self.splits["val"])
        whole = replace(result, deployed=tuple(deploy(chosen, self.folder / "deployed", self.table, data)))
        write_selection(whole, trainings)
        return whole
