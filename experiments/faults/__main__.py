"""python -m experiments.faults: the n-th write, fsync, rename, open or mkdir of small runs fails, or kills, for every n.

Options: only (search, train, export, select, queue), sample (so many points more, drawn by seed; 0: all), minutes (after which no
new point begins; 0: no limit), folder (where faults.csv and README.md lie). Each point is one run that a fault of one kind ends,
and the same run gone on with; EIO, ENOSPC, EACCES and kill -9 take turns. Linux with a C compiler. A finished point is kept and
the same command goes on; a row that is deleted, or the whole table, is tried anew.
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
from typing import Any

from experiments.command import options_of, run
from experiments.faults.points import GOOD, Outcome, Runner
from experiments.page import write_part
from nas.cost.table_file import cpu_name
from nas.errors import UserError
from nas.files import csv_text, read_rows, write_atomic
from nas.measure import commit

HERE = Path(__file__).parent
DEFAULTS = {"only": "", "sample": 0, "seed": 0, "minutes": 0.0, "folder": str(HERE)}
LIBRARY = "MAENAS_FAULTS"
COLUMNS = (*(item.name for item in fields(Outcome)), "commit", "processor")

Row = dict[str, str]


def main(words: list[str]) -> None:
    """Go through the points and write the table. Raises UserError for an option that is unknown, and for points that failed."""
    options = options_of(words, DEFAULTS)
    if LIBRARY not in os.environ:
        _again_with_library(words)
        return
    from experiments.faults.scenes import SCENES

    scenes = [scene for scene in SCENES if not options["only"] or scene.name in options["only"].split(",")]
    if not scenes:
        raise UserError(f"only={options['only']}: {', '.join(scene.name for scene in SCENES)}")
    folder = Path(options["folder"])
    rows = read_rows(folder / "faults.csv")
    how = {"commit": commit()[:12], "processor": cpu_name()}
    done = {(row["scene"], int(row["point"])) for row in rows}
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        runner, runs = Runner(Path(place).resolve(), os.environ[LIBRARY]), []
        for scene in scenes:
            count = runner.points(scene)
            print(f"{scene.name}: {count} calls", flush=True)
            runs += [(scene, number) for number in range(1, count + 1)]
        Random(options["seed"]).shuffle(runs)  # so that any beginning is a fair sample
        runs = [(scene, number) for scene, number in runs if (scene.name, number) not in done]
        began = time.monotonic()
        for number, (scene, point) in enumerate(runs[: options["sample"] or None], 1):
            outcome = runner.outcome(scene, point)
            rows.append({name: str(value) for name, value in asdict(outcome).items()} | how)
            _write(folder, rows)
            seconds = time.monotonic() - began
            if not outcome.good or number % 10 == 0:
                print(f"{number} of {len(runs)}, {seconds:.0f} s: {outcome}", flush=True)
            if seconds > 60 * options["minutes"] > 0:
                break
    bad = _write(folder, rows)
    print(f"{len(rows)} points, {bad} of them not as they should")
    if bad:
        raise UserError(f"{bad} points did not end in one line, or did not go on to the same bytes")


def outcome_of(row: Row) -> Outcome:
    """The outcome that a row of the table tells."""
    told: dict[str, Any] = {item.name: row[item.name] for item in fields(Outcome)}
    return Outcome(**told | {"point": int(row["point"])})


def _write(folder: Path, rows: Sequence[Row]) -> int:
    """The table, by scene and point, and what it comes to; returns how many points are not as they should be."""
    ordered = sorted(rows, key=lambda row: (row["scene"], int(row["point"])))
    write_atomic(folder / "faults.csv", csv_text([COLUMNS, *([row[name] for name in COLUMNS] for row in ordered)]))
    counts = Counter((row["scene"], row["call"]) for row in rows)
    calls = sorted({call for _, call in counts})
    lines = [
        f"| run | points | {' | '.join(calls)} | one line | killed | went on | then same bytes |",
        "|---" * (len(calls) + 6) + "|",
    ]
    for scene in sorted({row["scene"] for row in rows}):
        own = [row for row in rows if row["scene"] == scene]
        ended = Counter(row["ended"] for row in own)
        same = sum(row["again"] == "same bytes" for row in own)
        cells = [scene, len(own), *(counts[scene, call] for call in calls), *(ended[way] for way in GOOD), same]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    bad = sum(not outcome_of(row).good for row in rows)
    where = sorted({f"{row['processor']}, commit {row['commit']}" for row in rows})
    lines += ["", f"{len(rows)} points, {bad} of them not as they should be. {'; '.join(where)}."]
    write_part(folder / "README.md", "outcomes", "\n".join(lines))
    return bad


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
