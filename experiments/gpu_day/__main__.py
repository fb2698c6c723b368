"""python -m experiments.gpu_day [STEP ...] minutes=25 [dry=true] [folder=outputs/gpu_day] [data=bccd]

What no CPU can show, on any NVIDIA machine, in the order of its worth and within the minutes: a training in mixed precision,
every deployed format (TensorRT, torch.compile, CUDA) with its parity, AP and milliseconds, the tests, a latency table of the
GPU with its validation, a compiled training, and the rows of the report's tables that wait for one. `report.html` tells what
came out. The same command goes on: finished steps are not repeated, a step that was cut resumes. A step begins only if its
reckoned minutes are left. dry=true tries the same steps on the CPU with tiny settings; without a GPU nothing else starts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.command import run, split_words
from experiments.gpu_day.steps import Step, chosen
from nas.errors import UserError
from nas.files import claimed, read_json, write_atomic, write_json
from nas.measure import cpu_facts, gpu_facts
from nas.options import read_object
from nas.report.page import fold, html_table, note, page, verdict

DEFAULTS: dict[str, Any] = {"minutes": 25.0, "dry": False, "folder": "outputs/gpu_day", "data": ""}
#: Seconds that a step which is cut has to save its state.
GRACE = 20.0


@dataclass(frozen=True)
class Outcome:
    """How a step ended: done, failed, cut (the time was up) or left (not begun), seconds, and what came out."""

    name: str
    state: str
    seconds: float = 0.0
    told: tuple[str, ...] = ()


def main(words: list[str]) -> None:
    """Run what is not done yet, and write the report.

    Raises UserError for an unknown step or option, where there is no GPU, and if a step failed.
    """
    names, options = split_words(words, DEFAULTS)
    if not 0 < options["minutes"] < float("inf"):
        raise UserError(f"minutes must be positive, got {options['minutes']}")
    plan = chosen(names, options["data"] or data_at_hand())
    if not options["dry"]:
        require_gpu()
    folder = Path(options["folder"] + ("-dry" if options["dry"] else ""))
    with claimed(folder):
        outcomes = work(plan, folder.resolve(), 60 * options["minutes"], options["dry"])
        report = write_report(folder, plan, outcomes, options["dry"])
    left = [outcome.name for outcome in outcomes if outcome.state != "done"]
    print(f"{len(outcomes) - len(left)} of {len(outcomes)} steps done; report: {report}")
    failed = [outcome.name for outcome in outcomes if outcome.state == "failed"]
    if failed:
        raise UserError(f"failed: {', '.join(failed)}; {folder}/STEP/log.txt tells why, the same command tries again")


def data_at_hand() -> str:
    """BCCD where it lies, else drawn shapes."""
    return "bccd" if any((Path(place) / "bccd").is_dir() for place in ("data", "../shared/data")) else "shapes"


def require_gpu() -> None:
    """Raise UserError without an NVIDIA GPU."""
    import torch

    if not torch.cuda.is_available():
        raise UserError("no NVIDIA GPU is found: dry=true tries the steps on the CPU")


def work(plan: Sequence[Step], folder: Path, seconds: float, dry: bool) -> list[Outcome]:
    """Take the steps in order until the time is up; each leaves its outcome beside its log."""
    end = time.monotonic() + seconds
    found = []
    for step in plan:
        known = folder / step.name / "outcome.json"
        before = read_object(Outcome, read_json(known), f"{known}:") if known.is_file() else None
        left = end - time.monotonic()
        if before is not None and before.state == "done":
            outcome = before
        elif step.needs and not (folder / step.needs).is_file():
            outcome = Outcome(step.name, "left", 0.0, (f"it needs {step.needs} of an earlier step",))
        elif left < (60 * step.minutes if not dry else 1.0):
            outcome = Outcome(
                step.name, "left", 0.0, (f"{step.minutes:g} minutes are reckoned, {left / 60:.1f} were left",)
            )
        else:
            print(f"{step.name}: {step.why} (about {step.minutes:g} minutes)", flush=True)
            outcome = take(step, folder, left, dry)
            write_json(known, asdict(outcome))
        print(f"{outcome.name}: {outcome.state}{'; '.join(('', *outcome.told[:2]))}", flush=True)
        found.append(outcome)
    return found


def take(step: Step, folder: Path, seconds: float, dry: bool) -> Outcome:
    """Run one step for so long at most; SIGINT lets it save its state."""
    place = folder / step.name
    place.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", *step.command(folder, seconds / 60 - 0.5, dry)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    began, log = time.monotonic(), place / "log.txt"
    with log.open("ab") as stream:
        stream.write(f"$ {' '.join(command[1:])}\n".encode())
        stream.flush()
        hears = _hear_interrupts if os.name == "posix" else None
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment, preexec_fn=hears)
        cut = False
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            cut = True
            _stop(process)
        except KeyboardInterrupt:
            _stop(process)
            raise
    spent = round(time.monotonic() - began, 1)
    if cut and not step.elastic:
        return Outcome(step.name, "cut", spent, ("the time was up; the same command goes on with it",))
    if process.returncode and not cut:
        lines = log.read_text(errors="replace").strip().splitlines()
        return Outcome(step.name, "failed", spent, tuple(lines[-1:]))
    return _read(step, place, spent)


def _hear_interrupts() -> None:
    """What is started behind a shell's `&` ignores SIGINT, and would lose what it had not saved."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a step, by force if it does not go."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read(step: Step, place: Path, seconds: float) -> Outcome:
    """What a finished step left; one that left nothing to read has failed."""
    try:
        return Outcome(step.name, "done", seconds, tuple(step.read(place)))
    except (UserError, OSError, KeyError, IndexError, TypeError) as error:
        return Outcome(step.name, "failed", seconds, (f"it left nothing to read: {type(error).__name__}: {error}",))


def write_report(folder: Path, plan: Sequence[Step], outcomes: Sequence[Outcome], dry: bool) -> Path:
    """Write report.html and gpu_day.json: what came out of every step, where, and the end of every log."""
    facts = cpu_facts() if dry else gpu_facts()
    done = sum(outcome.state == "done" for outcome in outcomes)
    what = "A dry run on the CPU: what is told here is of no GPU" if dry else f"On {facts.get('name', 'a GPU')}"
    rows = [
        {"step": step.name, "what": step.why, "state": outcome.state, "seconds": outcome.seconds}
        for step, outcome in zip(plan, outcomes, strict=True)
    ]
    body = [verdict([f"{what}: {done} of {len(outcomes)} steps are done."]), html_table(rows)]
    for outcome in outcomes:
        log = folder / outcome.name / "log.txt"
        tail = log.read_text(errors="replace").splitlines()[-40:] if log.is_file() else []
        body += [f"<h2>{outcome.name}</h2>", *(note(line) for line in outcome.told)]
        body.append(fold("The end of its log", *(note(line) for line in tail)))
    body.append(fold("Where it ran", html_table([facts])))
    write_json(folder / "gpu_day.json", {"dry": dry, "host": facts, "steps": [asdict(outcome) for outcome in outcomes]})
    return write_atomic(folder / "report.html", page("A day on the GPU", body))


if __name__ == "__main__":
    run(main)
