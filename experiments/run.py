"""python -m experiments.run all scale=cpu minutes=20: train what the tables still lack, within a time limit.

Names are folders of experiments/ that hold a table.yaml, or `all`. Options: scale (cpu, cpu10, gpu, coco), minutes (of wall
time), jobs (runs at once on one big GPU), output (folder of the checkpoints). A run that the limit or Ctrl-C cuts is
resumed by the next call; finished ones are lines of experiments/results/*.csv and are not repeated.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from experiments.command import run, split_words
from experiments.queue import Job, append_result, equal_rows, missing_jobs, share_results
from experiments.scales import Scale, load_scale
from experiments.tables import FOLDER, table_names
from nas.errors import UserError

DEFAULTS = {"scale": "cpu", "minutes": 20.0, "jobs": 1, "output": "outputs/experiments"}


def main(words: list[str]) -> None:
    """Run what is missing and tell what is left; UserError for an unknown option, table or scale."""
    names, options = split_words(words, DEFAULTS)
    if options["jobs"] < 1 or not 0 < options["minutes"] < float("inf"):
        raise UserError(f"jobs must be at least 1 and minutes positive, got {options['jobs']} and {options['minutes']}")
    tables = list(table_names()) if not names or "all" in names else names
    scale = load_scale(options["scale"])
    require_device(scale)
    share_results(scale)
    jobs = missing_jobs(tables, scale, Path(options["output"]))
    print(f"{len(jobs)} runs are missing at scale {scale.name} ({scale.note})")
    finished = work(jobs, 60 * options["minutes"], options["jobs"])
    left = len(missing_jobs(tables, scale, Path(options["output"])))
    print(
        f"{finished} runs finished, {left} are left; the same command goes on; python -m experiments.report shows the tables"
    )


def require_device(scale: Scale) -> None:
    """Raise UserError if the scale needs a GPU and there is none."""
    if scale.device == "gpu":
        import torch

        if not torch.cuda.is_available():
            raise UserError(f"scale {scale.name} needs a GPU and torch sees none; its runs wait in the queue")


def work(jobs: list[Job], seconds: float, at_once: int) -> int:
    """Run jobs until the time is up, `at_once` processes side by side; returns how many finished."""
    deadline = time.monotonic() + seconds
    waiting, finished = list(jobs), 0
    running: list[tuple[subprocess.Popen[bytes], Job]] = []
    try:
        while waiting or running:
            for process, job in list(running):
                if process.poll() is None:
                    continue
                running.remove((process, job))
                if process.returncode == 0:
                    append_result(json.loads((job.folder / "result.json").read_text()))
                    share_results(job.scale)
                    finished += 1
                else:
                    print(f"failed: {job.table.name}, {job.row.name}, seed {job.seed}: see {job.folder}/log.txt")
            if time.monotonic() > deadline:
                break
            ready = next((job for job in waiting if _ready(job)), None)
            if ready is not None and len(running) < at_once:
                waiting.remove(ready)
                running.append((_start(ready), ready))
                continue
            if ready is None and not running:
                break  # what is left waits for a teacher that failed
            time.sleep(0.2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on")
    finally:
        for process, _ in running:
            process.terminate()
        for process, _ in running:
            process.wait()
    return finished


def _ready(job: Job) -> bool:
    """Whether the job's teacher, if it has one, is there."""
    return job.teacher is None or job.teacher.finished


def _start(job: Job) -> subprocess.Popen[bytes]:
    job.folder.mkdir(parents=True, exist_ok=True)
    others = [f"{table.name}: {row.name}" for table, row in equal_rows(job.table.name, job.row.name, job.scale.name)[1:]]
    also = f" (also {', '.join(others)})" if others else ""
    print(f"running {job.table.name}: {job.row.name}, seed {job.seed}{also}", flush=True)
    with (job.folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.train_row", *job.command()],
            stdout=log,
            stderr=log,
            cwd=FOLDER.parent,
            start_new_session=True,  # Ctrl-C is for this process, which asks its trainings once to save and stop
        )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` stops the trainings as Ctrl-C does
    run(main)
