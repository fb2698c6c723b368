"""python -m experiments.exact_search.budgets [budgets=latency_3ms,flops_10g] [times=10] [seed=0]

Exact search against evolution with `times` its CPU time, for every entry of conf/budget on whole detectors and the
default table; one row an entry is added to budgets.csv, and what is there is not computed again.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

from experiments.command import arguments, run
from nas.config.launch import config_folder
from nas.config.search import limits_of
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.files import read_text, read_yaml, write_atomic
from nas.measure.device import commit
from nas.searchers.catalog import make_problem, search_with
from nas.searchers.problem import Problem
from nas.searching import SearchSettings

TARGET = Path(__file__).with_name("budgets.csv")
COLUMNS = ("budget", "exact", "upper", "exact_seconds", "evolution", "evolution_seconds", "evaluations", "architectures",
           "commit")  # fmt: skip


def problem_of(budget: str) -> Problem:
    """The default search problem under one named budget."""
    path = Path(config_folder()) / "budget" / f"{budget}.yaml"
    if not path.is_file():
        raise UserError(f"no budget {budget!r} in {path.parent}")
    settings = SearchSettings.of(limits_of(read_yaml(path)))
    table = LatencyTable.load(settings.hardware)
    return make_problem(settings.space, settings.budget, "mae", {}, table, settings.frame, settings.frame.image_size)


def compare(budget: str, times: float, seed: int) -> dict[str, Any]:
    """One row: both searches on the same problem, in CPU seconds of this process."""
    problem, trial = problem_of(budget), 400_000  # enough for the rate to settle
    start = time.process_time()
    exact = search_with("exact", {}, problem, 1)
    seconds = time.process_time() - start
    if exact.best is None or exact.certificate is None:
        raise UserError(f"nothing fits budget {budget}")
    start = time.process_time()
    search_with("evolution", {}, problem, trial, seed)
    rate = trial / (time.process_time() - start)
    start = time.process_time()
    evolved = search_with("evolution", {}, problem, max(trial, int(times * seconds * rate)), seed)
    return {
        "budget": budget,
        "exact": round(exact.best.score, 6),
        "upper": round(exact.certificate.upper, 6),
        "exact_seconds": round(seconds, 1),
        "evolution": round(evolved.best.score, 6) if evolved.best else "",
        "evolution_seconds": round(time.process_time() - start, 1),
        "evaluations": evolved.evaluated,
        "architectures": exact.certificate.architectures,
        "commit": commit()[:12],
    }


def main() -> None:
    given = arguments({"budgets": "", "times": "10", "seed": "0"})
    every = sorted(path.stem for path in (Path(config_folder()) / "budget").glob("*.yaml"))
    wanted = given["budgets"].split(",") if given["budgets"] else every
    rows = list(csv.DictReader(read_text(TARGET).splitlines())) if TARGET.exists() else []
    for budget in wanted:
        if any(row["budget"] == budget for row in rows):
            continue
        row = compare(budget, float(given["times"]), int(given["seed"]))
        rows.append({key: str(value) for key, value in row.items()})
        lines = [",".join(COLUMNS), *(",".join(row[key] for key in COLUMNS) for row in rows)]
        write_atomic(TARGET, "\n".join(lines) + "\n")
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    run(main)
