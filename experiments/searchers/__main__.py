"""python -m experiments.searchers [seeds=20] [evaluations=5000] [trials=200] [most=N] [cases=a,b] [folder=PATH]

Random search, evolution, NSGA-II and Optuna's TPE against the proved optimum of five problems (`problems.py`). A run is a
row of runs.csv: the best after so many evaluations, and the evaluations and CPU seconds until it is within 1 % of the
optimum. A finished row is kept at once and the same command goes on; README.md and curves.png are made of what is there.
trials: evaluations of TPE, whose time grows with their square; most: runs of this call; folder: where the files lie.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.command import options_of, run
from experiments.searchers.problems import CASES
from experiments.searchers.report import write_report
from nas.cost.table_file import cpu_name
from nas.errors import UserError
from nas.files import csv_text, read_rows, write_atomic
from nas.measure import commit
from nas.searchers.catalog import search_with
from nas.searchers.loop import Progress, SearchOutcome

HERE = Path(__file__).parent
COLUMNS = ("case", "searcher", "seed", "evaluations", "best", "optimum", "evaluations_to_1", "seconds_to_1", "seconds",
           "curve", "commit", "machine")  # fmt: skip
#: Evaluations after which a row tells the best so far.
POINTS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)
#: Within which share of the optimum a run has arrived.
CLOSE = 0.01
#: Options with which all have batches of like size, so that curves have points early on.
OPTIONS: Mapping[str, Mapping[str, object]] = {
    "random": {"batch": 256},
    "evolution": {"population": 64, "batch": 256, "minor_from": 2500},
    "nsga2": {"population": 128},
    "optuna": {"sampler": "tpe"},
}

Row = dict[str, str]


def proved(case: str) -> Row:
    """The row of exact search, whose best is the optimum of the others; raises UserError where it proves none."""
    start = time.process_time()
    outcome = search_with("exact", {"levels": 1, "near": 0}, CASES[case].problem(), 1)
    seconds = time.process_time() - start
    if outcome.best is None or outcome.certificate is None:
        raise UserError(f"case {case}: exact search proves no optimum: {outcome.unproven or 'nothing fits'}")
    best = f"{outcome.best.score:.6f}"
    told = {"best": best, "optimum": f"{outcome.certificate.upper:.6f}", "seconds": f"{seconds:.2f}"}
    return _row(case, "exact", 0, told | {"seconds_to_1": f"{seconds:.2f}"})


def searched(case: str, searcher: str, seed: int, evaluations: int, optimum: float) -> Row:
    """The row of one run of a searcher on a problem of its own; seconds are CPU time of this process."""
    start, arrived = time.process_time(), list[float]()
    target = optimum - CLOSE * abs(optimum)

    def look(progress: Progress) -> None:
        if not arrived and progress.best is not None and progress.best["score"] >= target:
            arrived.append(time.process_time() - start)

    outcome = search_with(searcher, OPTIONS[searcher], CASES[case].problem(), evaluations, seed, on_progress=look)
    seconds = time.process_time() - start
    best = best_so_far(outcome)
    close = np.flatnonzero(best >= target)
    curve = ";".join(
        f"{count}:{best[count - 1]:.4f}" for count in POINTS if count <= len(best) and best[count - 1] > -np.inf
    )
    told = {
        "evaluations": str(len(best)),
        "best": f"{best[-1]:.6f}" if best[-1] > -np.inf else "",
        "optimum": f"{optimum:.6f}",
        "evaluations_to_1": str(close[0] + 1) if len(close) else "",
        "seconds_to_1": f"{arrived[0]:.2f}" if arrived else "",
        "seconds": f"{seconds:.2f}",
        "curve": curve,
    }
    return _row(case, searcher, seed, told)


def best_so_far(outcome: SearchOutcome) -> np.ndarray:
    """(evaluations,) best score inside the budget after each evaluation, -inf before the first."""
    inside = outcome.history.column("excess") == 0
    return np.maximum.accumulate(np.where(inside, np.nan_to_num(outcome.history.column("score"), nan=-np.inf), -np.inf))


def _row(case: str, searcher: str, seed: int, told: Mapping[str, Any]) -> Row:
    known = {"case": case, "searcher": searcher, "seed": str(seed), "commit": commit()[:12], "machine": cpu_name()}
    return {name: str((known | dict(told)).get(name, "")) for name in COLUMNS}


def missing(rows: Sequence[Row], cases: Sequence[str], seeds: int) -> list[tuple[str, str, int]]:
    """Runs without a row: exact search first, then seed by seed, so that every searcher has as many runs."""
    done = {(row["case"], row["searcher"], int(row["seed"])) for row in rows}
    wanted = [(case, "exact", 0) for case in cases]
    wanted += [(case, searcher, seed) for seed in range(seeds) for case in cases for searcher in CASES[case].searchers]
    return [each for each in wanted if each not in done]


def main(words: list[str]) -> None:
    """Add the missing runs and write page and picture; UserError for an unknown case."""
    defaults = {"seeds": 20, "evaluations": 5000, "trials": 200, "most": 10**9, "cases": "", "folder": str(HERE)}
    given = options_of(words, defaults)
    cases = given["cases"].split(",") if given["cases"] else list(CASES)
    for case in cases:
        if case not in CASES:
            raise UserError(f"cases={case}: known are {', '.join(CASES)}")
    folder = Path(given["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "runs.csv"
    rows = read_rows(path)
    for case, searcher, seed in missing(rows, cases, given["seeds"])[: given["most"]]:
        if searcher == "exact":
            row = proved(case)
        else:
            optimum = float(next(r["best"] for r in rows if r["case"] == case and r["searcher"] == "exact"))
            count = given["trials"] if searcher == "optuna" else given["evaluations"]
            row = searched(case, searcher, seed, count, optimum)
        rows.append(row)
        write_atomic(path, csv_text([COLUMNS, *([row[name] for name in COLUMNS] for row in rows)]))
        print(f"{case}, {searcher}, seed {seed}: {row['best']} of {row['optimum']} ({row['seconds']} s)", flush=True)
    write_report(folder, rows)
    print(f"{path} has {len(rows)} runs; page and picture are made of them")


if __name__ == "__main__":
    run(main)
