"""Selections replayed on the recorded learning curves: proposals, rungs and factors judged by a hundred draws, without training.

A draw takes networks of one data set out of the bench, as a way of proposing does, and lets them run through the rungs of
`nas.select`, whose own decisions are called; a training is a look at its curve. A selection is judged by the AP of the last
epoch of the networks that were drawn: by val, which is what it decides by, and by test, which it never sees.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments.detector_bench.table import Run
from nas.errors import UserError
from nas.files import write_atomic
from nas.selection.halving import Standing, Task, course
from nas.selection.portfolio import Finalist
from nas.selection.rungs import Plan, make_plan

#: A network within half a point of AP of the best one is found as well.
NEAR = 0.005
#: What is tried: networks kept of a rung, and the share of a training that the first rung takes at least.
FACTORS = (2.0, 3.0, 4.0)
FIRSTS = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3)
#: Scores whose highest networks a way of proposing takes.
PROPOSING = ("effective_rank", "mae", "level_balance", "params")


@dataclass(frozen=True, slots=True)
class Replay:
    """What one selection chose. epochs: trained, as a share of training all to the end; val_regret, test_regret: AP of the
    best network that could have been chosen less that of the chosen one; drawn_lead: val AP of the chosen one over the
    best drawn network's."""

    chosen: str
    epochs: float
    val_regret: float
    test_regret: float
    drawn_lead: float

    @property
    def found(self) -> bool:
        """Whether the best, or one within half a point of it, was chosen."""
        return self.val_regret <= NEAR


def replay(pool: Sequence[Run], entrants: Sequence[Run], plan: Plan) -> Replay:
    """Let `entrants` run through `plan` and compare with the best of `pool`, which holds them.

    Rungs end at the first recorded epoch that is not before theirs, and are paid for as long.
    """
    runs = {run.digest: run for run in entrants}
    finalists = [finalist_of(run) for run in entrants]
    paid = dict.fromkeys(runs, 0)

    def rung(number: int, tasks: Sequence[Task]) -> list[Standing]:
        standings = []
        for finalist, seed in tasks:
            seen = [point for point in runs[finalist.digest].curve if point[0] < plan.rungs[number].epochs]
            end = runs[finalist.digest].curve[len(seen)]
            best = max(ap for _, ap, _ in (*seen, end))
            paid[finalist.digest] = max(paid[finalist.digest], end[0])
            standings.append(Standing(finalist, seed, end[0], end[1], best))
        return standings

    *_, last = course(plan, finalists, 0, rung)
    chosen = runs[last.kept[0].digest]
    drawn = [run.val_ap for run in entrants if run.family == "scaled"]
    return Replay(
        chosen.name,
        sum(paid.values()) / sum(run.epochs for run in entrants),
        max(run.val_ap for run in pool) - chosen.val_ap,
        max(run.test_ap for run in pool) - chosen.test_ap,
        chosen.val_ap - max(drawn) if drawn else float("nan"),
    )


def finalist_of(run: Run) -> Finalist:
    """The network of a run, as a selection knows it."""
    origin: Literal["searched", "drawn"] = "drawn" if run.family == "scaled" else "searched"
    return Finalist(run.name, origin, run.space, run.score, run.spec, run.digest, {"latency_ms": run.latency_ms})


def by_chance(pool: Sequence[Run], count: int, rng: random.Random) -> list[Run]:
    """Any networks."""
    return rng.sample(list(pool), count)


def by_score(score: str) -> Callable[[Sequence[Run], int, random.Random], list[Run]]:
    """The highest of twice as many networks that were met by chance, each band by itself."""

    def chosen(pool: Sequence[Run], count: int, rng: random.Random) -> list[Run]:
        met = rng.sample(list(pool), min(len(pool), 2 * count))
        place: dict[str, int] = {}
        for band in {run.band_ms for run in met}:
            order = sorted((r for r in met if r.band_ms == band), key=lambda r: -(r.scores | r.counts)[score])
            place |= {run.digest: number for number, run in enumerate(order)}
        return sorted(met, key=lambda run: (place[run.digest], run.digest))[:count]

    return chosen


def simulate(runs: Sequence[Run], candidates: int, draws: int) -> list[dict[str, Any]]:
    """One row for every data set, way of proposing, factor and first rung: means over `draws` seeds.

    `found` counts the draws whose choice is within half a point of the best of what was proposed; regrets are against
    all networks that could have been proposed. Raises UserError where no data set holds enough networks.
    """
    rows = []
    ways = {"chance": by_chance} | {score: by_score(score) for score in PROPOSING}
    for data in dict.fromkeys(run.data for run in runs):
        seeds = by_network(run for run in runs if run.data == data)
        if len(seeds) < candidates:
            continue
        epochs = next(iter(seeds.values()))[0].epochs
        plans: dict[Plan, tuple[float, float]] = {}
        for factor, first in product(FACTORS, FIRSTS):
            plans.setdefault(make_plan(candidates, epochs, factor, 1, first), (factor, first))
        for (way, propose), (plan, (factor, first)) in product(ways.items(), plans.items()):
            met, whole = [], []
            for seed in range(draws):
                rng = random.Random(f"{data} {seed}")
                pool = [rng.choice(several) for several in seeds.values()]
                entrants = propose(pool, candidates, rng)
                met.append(replay(entrants, entrants, plan))
                whole.append(replay(pool, entrants, plan))
            rows.append(
                {
                    "data": data,
                    "networks": len(seeds),
                    "candidates": candidates,
                    "draws": draws,
                    "proposed_by": way,
                    "factor": factor,
                    "first": first,
                    "rungs": [[rung.epochs, rung.entrants] for rung in plan.rungs],
                    "epochs": round(float(np.mean([one.epochs for one in met])), 4),
                    "found": sum(one.found for one in met) / draws,
                    "val_regret": round(float(np.mean([one.val_regret for one in whole])), 5),
                    "test_regret": round(float(np.mean([one.test_regret for one in whole])), 5),
                    "drawn_lead": round(float(np.nanmean([one.drawn_lead for one in met])), 5),
                }
            )
    if not rows:
        raise UserError(
            f"no data set of the bench holds {candidates} networks yet: take fewer candidates, or train more"
        )
    return rows


def by_network(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of every network, by seed."""
    found: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.digest, run.seed)):
        found.setdefault(run.digest, []).append(run)
    return found


def write_simulation(runs: Sequence[Run], candidates: int, draws: int, folder: Path) -> str:
    """simulated.json with every row, simulated.md with those proposed by chance; returns the text."""
    rows = simulate(runs, candidates, draws)
    write_atomic(folder / "simulated.json", json.dumps({"near": NEAR, "rows": rows}, indent=1) + "\n")
    lines = []
    for data in dict.fromkeys(row["data"] for row in rows):
        chosen = [row for row in rows if row["data"] == data]
        lines += [
            f"## {data}: {candidates} of {chosen[0]['networks']} networks, {draws} draws",
            "",
            "| factor | rungs (epochs x networks) | epochs trained | best found | val regret | test regret |",
            "|---|---|---|---|---|---|",
        ]
        for row in (row for row in chosen if row["proposed_by"] == "chance"):
            rungs = ", ".join(f"{epochs} x {entrants}" for epochs, entrants in row["rungs"])
            lines.append(
                f"| {row['factor']:g} | {rungs} | {row['epochs']:.0%} | {row['found']:.0%} | {row['val_regret']:.4f} | "
                f"{row['test_regret']:.4f} |"
            )
        lines += ["", "| proposed by | val regret, mean over all rungs | test regret |", "|---|---|---|"]
        for way in dict.fromkeys(row["proposed_by"] for row in chosen):
            of_way = [row for row in chosen if row["proposed_by"] == way]
            val, test = (np.mean([row[name] for row in of_way]) for name in ("val_regret", "test_regret"))
            lines.append(f"| {way} | {val:.4f} | {test:.4f} |")
        lines.append("")
    text = "\n".join(lines) + "\n"
    write_atomic(folder / "simulated.md", text)
    return text
