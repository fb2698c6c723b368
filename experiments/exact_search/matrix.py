"""python -m experiments.exact_search.matrix [jobs=1] [most=N] [spaces=a,b] [scores=a,b] [budgets=a,b] [seed=0] [folder=PATH]

Exact search of every shipped space x every analytic score x every entry of conf/budget, on whole detectors: a row a cell
in matrix.csv, and what they come to in README.md. Every cell has a process of its own with the limits of `cell.py`. A
finished row is kept at once, the same command goes on, and a row that is deleted is computed anew. Cells are taken in an
order drawn by the seed, so that what is finished is a fair sample of the rest. most: cells of this call; folder: where
both files lie.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from random import Random

from filelock import FileLock

from experiments.command import options_of, run
from experiments.exact_search.cell import (
    CPU_SECONDS,
    NOT_SERVED,
    NOTHING,
    PROVED,
    UNPROVED,
    Finding,
    problem_of,
    refusal,
)
from experiments.page import write_part
from nas.cost.table_file import cpu_name
from nas.errors import UserError
from nas.files import config_folder, csv_text, read_rows, write_atomic
from nas.measure import commit
from nas.scorers import SCORERS
from nas.scorers.learned import SHIPPED
from search_spaces import space_names

HERE = Path(__file__).parent
COLUMNS = ("space", "score", "budget", "state", "reason", "value", "bound", "gap", "seconds", "memory_mb", "seed",
           "commit", "machine")  # fmt: skip

Cell = tuple[str, str, str]
Row = dict[str, str]


def score_names() -> tuple[str, ...]:
    """Scores in closed form; the learned one where a fitted file is shipped."""
    names = [name for name, scorer in SCORERS.items() if scorer.closed_form]
    return tuple(name for name in names if name != "learned" or SHIPPED.is_file())


def budget_names() -> tuple[str, ...]:
    """The entries of conf/budget."""
    return tuple(sorted(path.stem for path in (Path(config_folder()) / "budget").glob("*.yaml")))


def cells() -> list[Cell]:
    """Every cell, in the order of the file."""
    scores, budgets = score_names(), budget_names()
    return [(space, score, budget) for space in space_names() for score in scores for budget in budgets]


def finished_cells(path: Path) -> dict[Cell, Row]:
    """The finished rows of a file by cell; none where there is no file."""
    return {(row["space"], row["score"], row["budget"]): row for row in read_rows(path)}


def add_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add rows to the file, all or none, whoever else adds to it."""
    with FileLock(path.with_name(f".{path.name}.lock")):
        known = finished_cells(path) | {(row["space"], row["score"], row["budget"]): row for row in rows}
        order = {cell: place for place, cell in enumerate(cells())}
        kept = sorted((cell for cell in known if cell in order), key=order.__getitem__)
        write_atomic(path, csv_text([COLUMNS, *([known[cell][name] for name in COLUMNS] for cell in kept)]))


def row_of(cell: Cell, finding: Finding, seed: int, seconds: str = "", memory_mb: str = "") -> Row:
    """The row of a cell; seconds and memory are empty where no process was measured."""
    value, bound = finding.value, finding.bound
    known = value is not None and bound is not None
    numbers = {"value": value, "bound": bound, "gap": bound - value if known else None}  # type: ignore[operator]
    texts = {name: "" if number is None else f"{number:.6f}" for name, number in numbers.items()}
    texts["gap"] = "" if numbers["gap"] is None else f"{numbers['gap']:.1e}"
    names = dict(zip(("space", "score", "budget"), cell, strict=True))
    where = {"seed": str(seed)} | _here()
    told = {"state": finding.state, "reason": finding.reason, "seconds": seconds, "memory_mb": memory_mb}
    return names | told | texts | where


@cache
def _here() -> dict[str, str]:
    """Commit and machine, asked for once."""
    return {"commit": commit()[:12], "machine": cpu_name()}


def measured(cell: Cell, seed: int) -> Row:
    """The row of a cell from a process of its own; raises UserError if that fails for no limit of a cell."""
    command = [sys.executable, "-m", "experiments.exact_search.cell", *cell, f"seed={seed}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    *doing, last = done.stdout.splitlines() or [""]
    if done.returncode == 0 and last.startswith("{"):
        told = json.loads(last)
        seconds, memory = str(told.pop("seconds")), str(told.pop("memory_mb"))
        return row_of(cell, Finding(**told), seed, seconds, memory)
    if done.returncode < 0:
        stage = [line.removeprefix("doing ") for line in (*doing, last) if line.startswith("doing ")]
        reason = f"the system ended it at {CPU_SECONDS:g} CPU seconds, while {stage[-1] if stage else 'setting up'}"
        return row_of(cell, Finding(UNPROVED, reason), seed, f"{CPU_SECONDS:g}")
    raise UserError(f"cell {' '.join(cell)} failed: {done.stderr.strip().splitlines()[-1:] or 'without a word'}")


def refused(missing: Sequence[Cell], seed: int) -> list[Row]:
    """Rows of cells whose score exact search does not take on their space, whatever the budget."""
    reasons: dict[tuple[str, str], str] = {}
    for space, score, budget in missing:
        if (space, score) not in reasons:
            reasons[space, score] = refusal(problem_of(space, score, budget))
    return [row_of(cell, Finding(NOT_SERVED, reasons[cell[:2]]), seed) for cell in missing if reasons[cell[:2]]]


def report(rows: dict[Cell, Row]) -> str:
    """The part of the page: what is finished, by space and score, and why some of it is unproven."""
    every, states = cells(), Counter(row["state"] for row in rows.values())
    served = [
        name for name in score_names() if any(r["score"] == name and r["state"] != NOT_SERVED for r in rows.values())
    ]
    lines = [
        f"{len(rows):,} of {len(every):,} cells are finished: {states[PROVED]:,} optima are proved, in {states[NOTHING]:,} it is "
        f"proved that nothing fits, {states[UNPROVED]:,} are unproved, and {states[NOT_SERVED]:,} are not served.",
        "",
        f"| space | {' | '.join(served)} | CPU s | MB | gap |",
        "|---" * (4 + len(served)) + "|",
    ]
    for space in space_names():
        mine = [row for row in rows.values() if row["space"] == space and row["state"] != NOT_SERVED]
        if not mine:
            continue
        counts = [_counts([row for row in mine if row["score"] == score]) for score in served]
        most = [
            max((float(row[name]) for row in mine if row[name]), default=None)
            for name in ("seconds", "memory_mb", "gap")
        ]
        shown = [
            "" if number is None else text.format(number)
            for number, text in zip(most, ("{:.1f}", "{:.0f}", "{:.0e}"), strict=True)
        ]
        lines.append(f"| {space} | {' | '.join(counts)} | {' | '.join(shown)} |")
    lines += ["", "Cells: proved / nothing fits / unproved; then the most CPU seconds, memory and gap of a cell.", ""]
    reasons = Counter((row["state"], _plain(row)) for row in rows.values() if row["reason"])
    lines += [
        "| cells | why not |",
        "|---|---|",
        *(f"| {n} {state} | {text} |" for (state, text), n in reasons.most_common()),
    ]
    return "\n".join(lines)


def _counts(rows: list[Row]) -> str:
    states = Counter(row["state"] for row in rows)
    return " / ".join(str(states[state]) for state in (PROVED, NOTHING, UNPROVED)) if rows else ""


def _plain(row: Row) -> str:
    """The reason of a row without its numbers' digits and bounds, so that like ones are counted together."""
    return re.sub(
        r"[\d.]+ CPU seconds", "some CPU seconds", row["reason"].split(" while ")[0].split("; narrow")[0]
    ).rstrip(",")


def chosen(text: str, known: Sequence[str], what: str) -> set[str]:
    """Names separated by commas, all known ones where there are none; raises UserError for an unknown one."""
    names = text.split(",") if text else list(known)
    for name in names:
        if name not in known:
            raise UserError(f"{what}={name}: known are {', '.join(known)}")
    return set(names)


def main(words: list[str]) -> None:
    """Add the missing rows; UserError for an unknown name or a cell that fails."""
    defaults = {"jobs": 1, "most": 10**9, "spaces": "", "scores": "", "budgets": "", "seed": 0, "folder": str(HERE)}
    given = options_of(words, defaults)
    names = [chosen(given[key], known, key) for key, known in
             (("spaces", space_names()), ("scores", score_names()), ("budgets", budget_names()))]  # fmt: skip
    folder, seed = Path(given["folder"]), given["seed"]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "matrix.csv"
    rows = finished_cells(path)
    wanted = [
        cell for cell in cells() if cell not in rows and all(n in some for n, some in zip(cell, names, strict=True))
    ]
    add_rows(path, refused(wanted, seed))
    rows = finished_cells(path)
    missing = [cell for cell in wanted if cell not in rows]
    Random(seed).shuffle(missing)
    with ThreadPoolExecutor(given["jobs"]) as pool:
        waiting = [pool.submit(measured, cell, seed) for cell in missing[: given["most"]]]
        try:
            for future in as_completed(waiting):
                row = future.result()
                add_rows(path, [row])
                print("  ".join(f"{row[name]}" for name in COLUMNS[:10] if row[name]), flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    write_part(folder / "README.md", "matrix", report(finished_cells(path)))
    print(f"{path} has {len(finished_cells(path)):,} of {len(cells()):,} cells")


if __name__ == "__main__":
    run(main)
