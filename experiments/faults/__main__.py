"""python -m experiments.faults: the n-th write, fsync, rename, open or mkdir of small runs fails, or kills, for every n.

Options: only (search, train, export, select, queue), sample (so many points drawn by seed; 0: all), minutes (after which no new
point begins; 0: no limit), write (false: no file). Each point is one run that a fault of one kind ends, and the same run gone on
with; EIO, ENOSPC, EACCES and kill -9 take turns. Linux with a C compiler. The table is experiments/results/faults.csv.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from experiments.command import options_of, run
from experiments.data import RESULTS
from nas.cost.table_file import cpu_name
from nas.errors import UserError
from nas.files import csv_text, write_atomic
from nas.measure import commit

if TYPE_CHECKING:
    from experiments.faults.points import Outcome

DEFAULTS = {"only": "", "sample": 0, "seed": 0, "minutes": 0.0, "write": True}
LIBRARY = "MAENAS_FAULTS"


def main(words: list[str]) -> None:
    """Go through the points and write the table. Raises UserError for an option that is unknown, and for points that failed."""
    options = options_of(words, DEFAULTS)
    if LIBRARY not in os.environ:
        _again_with_library(words)
        return
    from experiments.faults.points import Runner
    from experiments.faults.scenes import SCENES

    scenes = [scene for scene in SCENES if not options["only"] or scene.name in options["only"].split(",")]
    if not scenes:
        raise UserError(f"only={options['only']}: {', '.join(scene.name for scene in SCENES)}")
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        runner, runs = Runner(Path(place).resolve(), os.environ[LIBRARY]), []
        for scene in scenes:
            count = runner.points(scene)
            print(f"{scene.name}: {count} calls", flush=True)
            runs += [(scene, number) for number in range(1, count + 1)]
        Random(options["seed"]).shuffle(runs)  # so that any beginning is a fair sample
        began = time.monotonic()
        for scene, number in runs[: options["sample"] or None]:
            outcomes.append(runner.outcome(scene, number))
            seconds = time.monotonic() - began
            if not outcomes[-1].good or len(outcomes) % 10 == 0:
                print(f"{len(outcomes)} of {len(runs)}, {seconds:.0f} s: {outcomes[-1]}", flush=True)
                if options["write"]:
                    _write(outcomes)
            if seconds > 60 * options["minutes"] > 0:
                break
    if options["write"]:
        _write(outcomes)
    for (name, ended, again), count in sorted(Counter((o.scene, o.ended, o.again) for o in outcomes).items()):
        print(f"{count:5d}  {name:8} {ended:14} then {again}")
    bad = sum(not outcome.good for outcome in outcomes)
    print(f"{len(outcomes)} points, {bad} of them not as they should")
    if bad:
        raise UserError(f"{bad} points did not end in one line, or did not go on to the same bytes")


def _write(outcomes: Sequence[Outcome]) -> None:
    """The table, by scene and point."""
    facts = {"commit": commit()[:12], "processor": cpu_name()}
    rows = sorted((*asdict(outcome).values(), *facts.values()) for outcome in outcomes)
    heads = [item.name for item in fields(outcomes[0])]
    write_atomic(RESULTS / "faults.csv", csv_text([(*heads, *facts), *rows]))


def _again_with_library(words: list[str]) -> None:
    """This command with the C library's calls caught."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "faults.so"
        line = [
            "cc",
            "-shared",
            "-fPIC",
            "-O1",
            "-w",
            "-o",
            str(library),
            str(Path(__file__).with_name("faults.c")),
            "-ldl",
        ]
        try:
            subprocess.run(line, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(f"a C compiler for Linux is needed ({error})") from None
        environment = os.environ | {"LD_PRELOAD": str(library), LIBRARY: str(library), "OMP_NUM_THREADS": "1"}
        ended = subprocess.run([sys.executable, "-m", "experiments.faults", *words], env=environment)
    if ended.returncode:
        sys.exit(ended.returncode)


if __name__ == "__main__":
    run(main)
