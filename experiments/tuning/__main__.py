"""python -m experiments.tuning [seeds=5] [fresh=6] [most=N] [folder=PATH]

Settings of evolution swept on three problems that no comparison of this repository is judged on (`problems.py`), against the
optimum that exact search proves. Every setting runs with the first seeds; the best of them and the shipped one then run
with fresh seeds, which chose nothing, and for the shipped number of evaluations. A run is a row of sweep.csv, kept at once;
the same command goes on, and README.md is made of what is there. most: runs of this call; folder: where the files lie.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from experiments.command import options_of, run
from experiments.page import write_part
from experiments.searchers.__main__ import best_so_far
from experiments.tuning.problems import CASES, LONG, SETTINGS, SHIPPED, Run, Setting
from experiments.tuning.report import best_of, part, run_of
from nas.cost.table_file import cpu_name
from nas.errors import UserError
from nas.files import csv_text, read_rows, write_atomic
from nas.measure import commit
from nas.searchers.base import Problem
from nas.searchers.catalog import search_with

HERE = Path(__file__).parent
COLUMNS = ("case", "population", "crossover", "minor_from", "seed", "evaluations", "best", "optimum", "evaluations_to_01",
           "seconds", "commit", "machine")  # fmt: skip
#: Within which share of the optimum a run has arrived.
CLOSE = 0.001
Row = dict[str, str]


@cache
def problem_of(case: str) -> Problem:
    """The problem of a case, one for all runs of this process: what is priced once is priced for all."""
    return CASES[case].case.problem()


@cache
def optimum_of(case: str) -> float:
    """The score that exact search proves; UserError where it proves none."""
    outcome = search_with("exact", {"levels": 1, "near": 0}, CASES[case].case.problem(), 1)
    if outcome.best is None or outcome.certificate is None:
        raise UserError(f"case {case}: exact search proves no optimum: {outcome.unproven or 'nothing fits'}")
    return outcome.best.score


def row_of(wanted: Run, optimum: float) -> Row:
    """The row of one run; seconds are CPU time of this process."""
    setting, start = wanted.setting, time.process_time()
    outcome = search_with("evolution", setting._asdict(), problem_of(wanted.case), wanted.evaluations, wanted.seed)
    seconds, best = time.process_time() - start, best_so_far(outcome)
    close = (best >= optimum - CLOSE * abs(optimum)).nonzero()[0]
    told = {
        "case": wanted.case,
        **setting._asdict(),
        "seed": wanted.seed,
        "evaluations": len(best),
        "best": f"{best[-1]:.6f}",
        "optimum": f"{optimum:.6f}",
        "evaluations_to_01": close[0] + 1 if len(close) else "",
        "seconds": f"{seconds:.2f}",
        "commit": commit()[:12],
        "machine": cpu_name(),
    }
    return {name: str(told[name]) for name in COLUMNS}


def sweep(seeds: int) -> list[Run]:
    """Every setting on every problem, seed by seed."""
    return [
        Run(name, setting, seed, case.evaluations)
        for seed in range(seeds)
        for name, case in CASES.items()
        for setting in SETTINGS
    ]


def checks(best: Setting, seeds: range) -> list[Run]:
    """The best setting and the shipped one with seeds that chose nothing, as long as the sweep's runs and, where whole
    populations are scored at once, for the shipped number of evaluations."""
    return [
        Run(name, setting, seed, evaluations)
        for seed in seeds
        for name, case in CASES.items()
        for evaluations in (case.evaluations, *[LONG] * case.quick)
        for setting in dict.fromkeys((best, SHIPPED))
    ]


def missing(rows: Sequence[Row], seeds: int, fresh: int) -> Iterator[Run]:
    """Runs without a row; what is checked is known when the sweep is whole, so `rows` may grow meanwhile."""
    done = {run_of(row) for row in rows}
    yield from (each for each in sweep(seeds) if each not in done)
    yield from (each for each in checks(best_of(rows, seeds), range(seeds, seeds + fresh)) if each not in done)


def main(words: list[str]) -> None:
    """Add the missing runs and write the page."""
    given = options_of(words, {"seeds": 5, "fresh": 6, "most": 10**9, "folder": str(HERE)})
    folder = Path(given["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sweep.csv"
    rows = read_rows(path)
    for number, wanted in enumerate(missing(rows, given["seeds"], given["fresh"])):
        if number == given["most"]:
            break
        known = (float(row["optimum"]) for row in rows if row["case"] == wanted.case)
        row = row_of(wanted, next(known, None) or optimum_of(wanted.case))
        rows.append(row)
        write_atomic(path, csv_text([COLUMNS, *([row[name] for name in COLUMNS] for row in rows)]))
        print(f"{wanted.case}, {wanted.setting}, seed {wanted.seed}: {row['best']} of {row['optimum']}", flush=True)
    write_part(folder / "README.md", "evolution", part(rows, given["seeds"]))
    print(f"{path} has {len(rows)} runs; the page is made of them")


if __name__ == "__main__":
    run(main)
