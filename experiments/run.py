"""python -m experiments.run all scale=cpu minutes=20: train what the tables still lack, within a time limit.

Names are folders of experiments/ that hold a table.yaml, or `all`; without one the tables, their rows, the scales and what is
missing are listed and nothing starts. Options: scale (a file of experiments/scale), minutes (of
wall time), jobs (runs side by side; on a GPU no more than its memory allows), processes (of one run, by torchrun: one a GPU),
output (folder of the checkpoints). A run that the limit or Ctrl-C cuts is resumed by the next call; finished ones are lines
of experiments/results/*.csv and are not repeated. Where drawn shapes stand in for data that is not at hand, the lines go to
results/ in the output folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from experiments.command import run, split_words
from experiments.data import results_place
from experiments.queue import Job, Trainings, add_results, overview
from experiments.scales import load_scale, require_device
from experiments.tables import FOLDER, load_table, table_names
from nas.errors import UserError
from nas.training.cores import usable_cores, wait_briefly

DEFAULTS = {"scale": "cpu", "minutes": 20.0, "jobs": 1, "processes": 1, "output": "outputs/experiments"}


def main(words: list[str]) -> None:
    """Run what is missing and tell what is left; without a name list what there is.

    Raises UserError for an unknown option, table or scale, and for failed runs.
    """
    names, options = split_words(words, DEFAULTS)
    if min(options["jobs"], options["processes"]) < 1 or not 0 < options["minutes"] < float("inf"):
        raise UserError(
            f"jobs and processes must be at least 1 and minutes positive, got {options['jobs']}, {options['processes']} "
            f"and {options['minutes']}"
        )
    scale, output = load_scale(options["scale"]), Path(options["output"])
    if not names:
        print(
            f"{overview(output)}\n\npython -m experiments.run TABLE ... scale=SCALE trains what is missing; all: every table"
        )
        return
    tables = list(table_names()) if "all" in names else [load_table(name).name for name in names]
    require_device(scale)
    trainings = Trainings(scale, output)
    if trainings.data != scale.data:
        print(f"{scale.data} is not at hand and drawn shapes stand in for it; the results go to {trainings.place}")
    trainings.share()
    jobs = trainings.missing(tables)
    print(f"{len(jobs)} runs are missing at scale {scale.name} ({scale.note})")
    shift = Shift(options["jobs"], options["processes"])
    try:
        shift.work(jobs, 60 * options["minutes"])
    finally:
        trainings.share()
    left = len(trainings.missing(tables))
    print(
        f"{shift.finished} runs finished, {left} are left; the same command goes on; python -m experiments.report tells"
    )
    if shift.failed:
        raise UserError(f"{shift.failed} runs failed; the log.txt named above tells why")


@dataclass
class Running:
    """A training under way."""

    job: Job
    process: subprocess.Popen[bytes]
    started: float
    alone: bool

    @property
    def settled(self) -> bool:
        """Whether it has taken steps since it was started, and so holds the memory that it needs."""
        steps = self.job.folder / "steps.csv"
        return steps.exists() and steps.stat().st_mtime > self.started


@dataclass
class Shift:
    """Works on jobs within a time: up to `at_once` trainings of `processes` processes each."""

    at_once: int = 1
    processes: int = 1
    finished: int = 0
    failed: int = 0
    running: list[Running] = field(default_factory=list)

    def work(self, jobs: list[Job], seconds: float) -> None:
        """Run jobs until all are done, none can start, or the time is up; then stop those that run, with their state saved."""
        deadline = time.monotonic() + seconds
        waiting = list(jobs)
        try:
            while time.monotonic() < deadline and (waiting or self.running):
                waiting += self._collect()
                taught = [job for job in waiting if job.teacher is None or job.teacher.finished]
                if not taught and not self.running:
                    break  # what is left waits for a teacher that failed
                place = len(self.running) < self.at_once
                ready = next((job for job in taught if job.finished or place and not job.taken), None)
                if ready is not None and ready.finished:
                    self._record(ready)
                    waiting.remove(ready)
                elif ready is not None and self._has_room(ready):
                    waiting.remove(ready)
                    self.running.append(self._start(ready))
                else:
                    time.sleep(0.2)
        except KeyboardInterrupt:
            print("stopped; the same command goes on")
        finally:
            for each in self.running:
                each.process.terminate()
            for each in self.running:
                each.process.wait()
            self._collect(stopped=True)

    def _collect(self, stopped: bool = False) -> list[Job]:
        """Take the ended trainings off the list; returns those to be tried again."""
        again = []
        for each in [each for each in self.running if each.process.poll() is not None]:
            self.running.remove(each)
            log = each.job.folder / "log.txt"
            if each.job.finished:
                self._record(each.job)
            elif not stopped and not each.alone and "out of memory" in log.read_text(errors="replace")[-4000:]:
                self.at_once = max(1, self.at_once - 1)
                print(f"{each.job.row.name} found no memory beside others: again, {self.at_once} at once")
                again.append(each.job)
            elif not stopped:
                self.failed += 1
                print(f"failed: {each.job.table.name}, {each.job.row.name}, seed {each.job.seed}: see {log}")
        return again

    def _record(self, job: Job) -> None:
        line = json.loads((job.folder / "result.json").read_text())
        add_results(job.table.name, [line], results_place(job.data, job.output))
        self.finished += 1

    def _has_room(self, job: Job) -> bool:
        """Whether the GPU has half as much again free as each of those that run holds; known once they have taken steps."""
        if not self.running or job.scale.device == "cpu":
            return True
        if not all(each.settled for each in self.running):
            return False
        free, total = gpu_memory()
        return free > 1.5 * (total - free) / len(self.running)

    def _start(self, job: Job) -> Running:
        job.folder.mkdir(parents=True, exist_ok=True)
        others = ", ".join(f"{table.name}: {row.name}" for table, row in job.rows[1:])
        print(
            f"running {job.table.name}: {job.row.name}, seed {job.seed}{f' (also {others})' if others else ''}",
            flush=True,
        )
        several = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.processes}"]
        threads = max(1, usable_cores() // (self.at_once * self.processes))
        environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
        wait_briefly(environment)
        with (job.folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *(several if self.processes > 1 else []), "-m", "experiments.train_row", *job.words()],
                stdout=log,
                stderr=log,
                cwd=FOLDER.parent,
                env=environment,
                start_new_session=True,  # Ctrl-C is for this process, which asks its trainings once to save and stop
            )
        return Running(job, process, time.time(), alone=not self.running)


def gpu_memory() -> tuple[int, int]:
    """Free and total bytes of the first GPU."""
    import torch

    return torch.cuda.mem_get_info()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` stops the trainings as Ctrl-C does
    run(main)
