"""A selection on the terminal: its steps in its folder, and a live table of the rungs with what each decided."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.live import Live
from rich.table import Table

from nas.commands.search import limits_of
from nas.commands.select import ALSO, FREE, SelectCommand
from nas.commands.select_files import SelectionResult, read_finalists, verdict, write_finalists, write_selection
from nas.cost.budget import Budget
from nas.cost.latency import LatencyTable
from nas.data.dataset import DetectionData
from nas.data.sources import load_splits
from nas.errors import UserError
from nas.files import read_json, write_atomic, write_json
from nas.frame import Frame
from nas.models.checkpoint import read_header
from nas.options import read_object
from nas.report.selection import selection_page
from nas.resume import continuation, continued, store_settings
from nas.searchers.optuna import open_storage
from nas.selection.halving import Halving, RungResult, Standing
from nas.selection.portfolio import Finalist, Proposal
from nas.selection.rungs import Plan, make_plan, plan_of_minutes
from nas.selection.spent import Stopwatch
from nas.selection.trainings import Trainings, deploy, epoch_seconds
from nas.training.cores import usable_cores
from nas.training.loggers import make_loggers
from nas.training.task import TrainingTask

#: Seconds that export, measuring and test of one finalist are reckoned at.
DEPLOYING = 40.0


def proposal_of(command: SelectCommand, num_classes: int) -> Proposal:
    """What decides the finalists of a selection on data of `num_classes` classes; UserError for a budget that is none."""
    frame = Frame.of(replace(command.neck, num_classes=num_classes), command.image_size)
    budget = Budget.of(limits_of(command.budget), command.hardware)
    return Proposal(
        budget, command.hardware, frame, command.candidates, command.tolerance, command.evaluations, command.seed
    )


class Selection:
    """One selection in its folder; every step that was done is read back from there.

    uses: `use=[...]` of the command line, which the other workers of this machine need too.
    """

    def __init__(self, command: SelectCommand, folder: Path, uses: Sequence[str] = ()) -> None:
        self.command, self.folder, self.uses = command, folder, uses
        self.watch = Stopwatch(folder / "starts", begun=(folder / "finalists.json").is_file())
        self.table = LatencyTable.load(command.hardware)
        self.storage = open_storage(command.storage) if command.storage else None
        splits, self.report = load_splits(command.data)
        for split in ("train", "val"):
            if split not in splits:
                raise UserError(
                    f"data {command.data.name} has no {split} split: set data.{split}.images and annotations"
                )
        self.splits: dict[str, DetectionData] = splits
        self.proposal = proposal_of(command, splits["train"].num_classes)

    def run(self) -> SelectionResult:
        """Propose, plan, train and decide, each unless it is done already."""
        command, folder = self.command, self.folder
        folder.mkdir(parents=True, exist_ok=True)
        with self.watch, Screen(command.progress) as screen:
            for line in self.report.summary() if command.progress and command.resume is None else ():
                screen.say(line)
            with FileLock(folder / ".start.lock"):
                finalists = self._finalists(screen)
                plan = self._plan(finalists, screen)
                finalists = finalists[: plan.rungs[0].entrants]  # the most promising ones, where minutes allow no more
                alone = self._alone()
                storage = self.storage or open_storage(f"sqlite:///{folder / 'study.db'}")
            task = self._task(plan)
            screen.show_plan(plan, finalists, self.table.name)
            trainings = Trainings(task, folder / "candidates")
            kept = {f.digest: trainings.kept(f) for f in finalists} if command.weights is not None else {}
            for finalist in finalists if kept else ():
                screen.say(
                    f"{finalist.name}: {'{} of {}'.format(*kept[finalist.digest])} entries of {command.weights} fit"
                )
            halving = Halving(plan, storage, self._identity(finalists, plan), command.seed, command.lease, trainings)
            if alone and command.storage is None:
                halving.release()
            helpers = self._helpers() if alone else []
            try:
                results = halving.run(finalists, screen.show_standing, screen.show_rung)
            finally:
                with self.watch.apart():
                    for helper in helpers:
                        helper.terminate()
                    for helper in helpers:
                        helper.wait()
        curves = {finalist.digest: trainings.curve(finalist, command.seed) for finalist in finalists}
        result = SelectionResult(
            folder, self.proposal, plan, finalists, tuple(results), curves, images=len(task.train),
            weights=command.weights or "", kept=kept,
        )  # fmt: skip
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
            return read_object(Plan, read_json(path), f"{path}:")
        count = len(finalists)
        if command.minutes is None:
            plan = make_plan(count, command.epochs, command.factor, command.seeds)
        else:
            screen.say("timing a few batches")
            seconds = epoch_seconds(self._task(make_plan(count, 2)), finalists)
            fixed = DEPLOYING * (2 + command.seeds)
            plan = plan_of_minutes(command.minutes, seconds, fixed, count, factor=command.factor, seeds=command.seeds)
            screen.say(f"an epoch of one network takes {seconds:.1f} s: {plan.cost * seconds / 3600:.1f} h of training")
            if (entrants := plan.rungs[0].entrants) < count:
                screen.say(f"the first {entrants} of {count} networks take part: more would get too few epochs each")
        write_json(path, asdict(plan))
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
            loggers=command.loggers, table=self.table.digest, resize=command.data.resize,
        )  # fmt: skip

    def _identity(self, finalists: Sequence[Finalist], plan: Plan) -> str:
        """What the studies of this selection are called."""
        facts = [[finalist.digest for finalist in finalists], asdict(plan), self.splits["train"].digest(),
                 self.splits["val"].digest(), self.command.trainer.decisive(), self.command.augmentation.decisive(),
                 self.command.image_size, self.command.seed, self.command.weights,
                 *filter(None, [self.command.data.resize])]  # fmt: skip
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
        storage = [f"storage={self.command.storage}"] * bool(self.command.storage)
        own = ["progress=false", f"lease={self.command.lease}", *storage, *self.uses]
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
        deployed = tuple(deploy(chosen, self.folder / "deployed", self.table, data))
        whole = replace(result, deployed=deployed, spent=self.watch.total())
        write_selection(whole, trainings)
        write_atomic(self.folder / "report.html", selection_page(whole, verdict(whole)))
        return whole


def select_in(command: SelectCommand, folder: Path, given: Sequence[str] = ()) -> SelectionResult:
    """Select in `folder`, or go on with (or join) the selection to resume; `given`: the settings of the command line.

    Raises UserError for whatever cannot be done, before anything is trained; KeyboardInterrupt after a signal, with
    everything saved.
    """
    if command.resume is not None:
        folder = Path(command.resume)
        command = continued(command, given, FREE, ALSO)
    limits_of(command.budget)
    if (command.minutes is None) == (not command.epochs):
        raise UserError("say how long to train: minutes=60, or epochs=30 of a whole training (not both)")
    if command.trainer.best != "ap":
        raise UserError(
            f"trainer.best={command.trainer.best}: a selection decides by validation AP; leave trainer.best out"
        )
    if command.weights is not None:
        read_header(command.weights)  # refused now and not after the search for candidates
    make_loggers(command.loggers, command.trainer.log_steps)  # likewise
    selection = Selection(command, folder, [text for text in given if text.startswith("use=")])
    if command.resume is None:
        if (folder / "finalists.json").exists():
            raise UserError(f"{folder} already holds a selection: resume={folder} goes on with it")
        store_settings(command, folder, FREE)
    try:
        result = selection.run()
    except KeyboardInterrupt:
        print(f"stopped; go on with: python -m nas.select {continuation(folder, given, (*FREE, *ALSO))}", flush=True)
        raise
    for line in verdict(result):
        print(line, flush=True)
    print(f"report: {folder / 'report.html'}", flush=True)
    return result


class Screen:
    """Shows a selection; a context that ends its live table. `shown` false leaves single lines."""

    def __init__(self, shown: bool) -> None:
        self._console, self._shown = Console(), shown
        self._live = Live(console=self._console, refresh_per_second=2, transient=True)
        self._plan: Plan | None = None
        self._finalists: tuple[Finalist, ...] = ()
        self._reached: dict[tuple[str, int], float] = {}
        self._dropped: dict[str, int] = {}

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if self._plan is not None and self._shown:
            self._console.print(self._table())

    def say(self, text: str) -> None:
        """One line above the table."""
        if self._shown:
            self._console.print(text, highlight=False, markup=False)

    def show_plan(self, plan: Plan, finalists: Sequence[Finalist], table: str) -> None:
        """What is going to be trained, before anything is."""
        self._plan, self._finalists = plan, tuple(finalists)
        rungs = ", ".join(f"{rung.entrants} to epoch {rung.epochs}" for rung in plan.rungs)
        self.say(
            f"{len(finalists)} networks priced by {table}; {rungs}: at most {plan.cost} epochs ({plan.exhaustive} for all)"
        )
        if self._shown and self._console.is_terminal:
            self._live.start()
            self._live.update(self._table())

    def show_standing(self, standing: Standing) -> None:
        """A training came to the end of its rung."""
        self._reached[standing.finalist.digest, standing.epochs] = standing.ap
        if self._live.is_started:
            self._live.update(self._table())
        else:
            self.say(f"epoch {standing.epochs}: {standing.finalist.name} AP {100 * standing.ap:.1f}")

    def show_rung(self, result: RungResult) -> None:
        """A rung is over."""
        kept = {finalist.digest for finalist in result.kept}
        for standing in result.standings:
            self._reached[standing.finalist.digest, result.epochs] = standing.ap
            if standing.finalist.digest not in kept:
                self._dropped[standing.finalist.digest] = result.epochs
        self.say(f"after epoch {result.epochs}: {', '.join(finalist.name for finalist in result.kept)}")
        if self._live.is_started:
            self._live.update(self._table())

    def _table(self) -> Table:
        assert self._plan is not None
        table = Table("network", "origin", "ms", *(f"AP at {rung.epochs}" for rung in self._plan.rungs))
        for finalist in self._finalists:
            aps = [self._reached.get((finalist.digest, rung.epochs)) for rung in self._plan.rungs]
            style = "dim" if finalist.digest in self._dropped else ""
            ms = f"{finalist.metrics['latency_ms']:.2f}"
            cells = ["" if ap is None else f"{100 * ap:.1f}" for ap in aps]
            table.add_row(finalist.name, finalist.origin, ms, *cells, style=style)
        return table
