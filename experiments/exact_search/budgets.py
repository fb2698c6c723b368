"""python -m experiments.exact_search.budgets [budgets=latency_3ms,flops_10g] [times=10] [seed=0]

Exact search against evolution with `times` its CPU time, for every entry of conf/budget on whole detectors and the
default table: under the default neck, or the next smaller one of conf/neck where no network with that one fits. One row
an entry is added to budgets.csv, and what is there is not computed again.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from experiments.command import options_of, run
from nas.commands.search import SearchCommand
from nas.config import compose_config
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.files import config_folder, read_rows, write_atomic
from nas.measure import commit
from nas.searchers.base import Problem
from nas.searchers.catalog import make_problem, search_with
from nas.searchers.loop import Progress, SearchOutcome

TARGET = Path(__file__).with_name("budgets.csv")
NECKS = ("s", "t", "nano")
COLUMNS = ("budget", "neck", "exact", "upper", "exact_seconds", "evolution", "evolution_seconds", "evaluations",
           "architectures", "commit")  # fmt: skip


def problem_of(budget: str, neck: str) -> Problem:
    """The default search problem under one named budget, with one of the necks."""
    settings = compose_config("search", SearchCommand, {"+budget": budget, "neck": neck}).settings
    table = LatencyTable.load(settings.hardware)
    return make_problem(settings.space, settings.budget, "mae", {}, table, settings.frame, settings.frame.image_size)


def evolve(problem: Problem, limit: float, seed: int) -> tuple[SearchOutcome, float]:
    """What evolution finds in `limit` CPU seconds, and the seconds it used: it is stopped as Ctrl-C stops it."""
    start = time.process_time()
    late = False

    def stop(progress: Progress) -> None:
        nonlocal late
        if not late and time.process_time() - start > limit:
            late = True
            signal.raise_signal(signal.SIGINT)

    outcome = search_with("evolution", {}, problem, 10**9, seed, on_progress=stop)
    return outcome, time.process_time() - start


def compare(budget: str, times: float, seed: int) -> dict[str, Any]:
    """One row: both searches on the same problem, in CPU seconds of this process."""
    for neck in NECKS:
        problem = problem_of(budget, neck)
        start = time.process_time()
        exact = search_with("exact", {}, problem, 1)
        seconds = time.process_time() - start
        if exact.best is not None and exact.certificate is not None:
            break
    else:
        raise UserError(f"no network fits budget {budget} under any of the necks {', '.join(NECKS)}")
    evolved, used = evolve(problem, times * seconds, seed)
    return {
        "budget": budget,
        "neck": neck,
        "exact": round(exact.best.score, 6),
        "upper": round(exact.certificate.upper, 6),
        "exact_seconds": round(seconds, 1),
        "evolution": round(evolved.best.score, 6) if evolved.best else "",
        "evolution_seconds": round(used, 1),
        "evaluations": evolved.evaluated,
        "architectures": exact.certificate.architectures,
        "commit": commit()[:12],
    }


def main(words: list[str]) -> None:
    """Add the missing rows; UserError for an unknown budget or one that nothing fits."""
    given = options_of(words, {"budgets": "", "times": 10.0, "seed": 0})
    every = sorted(path.stem for path in (Path(config_folder()) / "budget").glob("*.yaml"))
    wanted = given["budgets"].split(",") if given["budgets"] else every
    rows = read_rows(TARGET)
    for budget in wanted:
        if any(row["budget"] == budget for row in rows):
            continue
        row = compare(budget, given["times"], given["seed"])
        rows.append({key: str(value) for key, value in row.items()})
        lines = [",".join(COLUMNS), *(",".join(row[key] for key in COLUMNS) for row in rows)]
        write_atomic(TARGET, "\n".join(lines) + "\n")
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    print(f"{TARGET.name} has {len(rows)} of {len(every)} budgets; a row that is deleted there is computed anew")


if __name__ == "__main__":
    run(main)
