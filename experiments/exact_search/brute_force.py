"""python -m experiments.exact_search.brute_force [problems=10000] [most=N] [spaces=a,b] [seed=0] [folder=PATH]

Exact search against looking at every member: random small parts of every shipped space, under random limits at and a hair
beside the costs of members, ranges, parts of the network and a second table among them, with and without neck and head,
and random scores. A small space with its PER problems is a row of brute_force.csv; a finished row is kept at once, the same
command goes on, and the page says what they come to. most: rows of this call; folder: where both files lie.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from copy import copy
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from experiments.command import options_of, run
from experiments.exact_search.matrix import HERE, chosen
from experiments.exact_search.small_spaces import members, small_space
from experiments.page import write_part
from nas.cost.budget import Budget
from nas.cost.latency import LatencyTable
from nas.cost.table_file import DEFAULT_TABLE
from nas.errors import UserError
from nas.files import csv_text, read_rows, write_atomic
from nas.frame import Frame
from nas.measure import commit
from nas.searchers.base import Evaluation, Problem, admitted
from nas.searchers.catalog import make_problem
from nas.searchers.exact.lagrange import exact_search_of, weighs_necks
from nas.searchers.exact.proof import chain_problem
from nas.searchers.exact.search import ExactResult
from search_spaces import find_space, space_names
from search_spaces.giraffe import GiraffeSpace
from search_spaces.stages import StageSpace
from search_spaces.tinynas import TinyNASSpace

#: Problems on one small space.
PER = 25
COLUMNS = ("space", "number", "members", "framed", "score", "problems", "proved", "nothing", "unproved", "wrong", "cases",
           "seconds", "seed", "commit")  # fmt: skip
#: What is limited: sums of the whole network, of its parts, and the milliseconds of a second table.
WHOLE = ("latency_ms", "params_m", "flops_g", "activations_m", "layers")
PARTS = ("params_m.stride16", "flops_g.stride8", "latency_ms.stem", "activations_m.stride32", "layers.stride16",
         "latency_ms@cpu_onnxruntime_fp32_1thread")  # fmt: skip
#: Scores that are drawn, and those that joined them from a space's number ADDED on, so that the rows before stay as drawn.
SCORES, ADDED = ("mae", "mae", "mae", "params", "macs", "layers"), 16
ADDED_SCORES = ("level_balance", "mae_residual", "effective_rank", "mae_neck")
#: From this number on scores that see a searched neck stay, whose optima exact search bounds; before, another took their place.
SEEN = 22
BEHIND = ("params_m.neck", "flops_g.head", "latency_ms.neck")


def chain_names() -> tuple[str, ...]:
    """The spaces that exact search serves: chains of blocks, with or without the neck."""
    return tuple(
        name for name in space_names() if isinstance(find_space(name), TinyNASSpace | StageSpace | GiraffeSpace)
    )


def draw_limits(
    every: Evaluation, names: tuple[str, ...], limited: tuple[str, ...], rng: Random, alike: bool = False
) -> dict[str, Any]:
    """One to three limits whose ends are at, or a hair beside, what members cost.

    every: all members; names: of its columns; limited: what may be limited; alike: only upper ends, or only lower ones.
    """
    limits: dict[str, Any] = {}
    upper = alike and rng.random() < 0.75
    for name in rng.sample(limited, rng.choice((1, 1, 2, 3))):
        column = every.metrics[:, names.index(name)]
        shares = sorted(rng.choice((0.0, 0.001, 0.02, 0.1, 0.3, 0.6, 0.9, 1.0)) for _ in range(2))
        hairs = [rng.choice((1.0, 1.0, 1 - 1e-15, 1 + 1e-15, 0.999, 1.001)) for _ in range(2)]
        low, high = (float(np.quantile(column, s, method="lower")) * h for s, h in zip(shares, hairs, strict=True))
        if not 0 < low <= high:
            low = high = max(high, low, 1e-9)
        limits[name] = rng.choice((high, high, high, [low, high], [low, None]))
        if alike:
            limits[name] = high if upper else [low, None]
    return limits


def _frame(side: int, rng: Random) -> Frame:
    """What surrounds a searched neck: its edges, fusion and head in all kinds."""
    return Frame(
        image_size=side, extra_down=rng.random() < 0.5, extra_up=rng.random() < 0.5, depthwise=rng.random() < 0.25,
        fusion=rng.choice(("elan", "elan", "csp", "conv")), activation=rng.choice(("silu", "relu")),
        head_stacked=rng.choice((0, 1)), num_classes=rng.choice((1, 80)),
    )  # fmt: skip


def _searched(free: Problem, limits: dict[str, Any], bins: int) -> tuple[Budget, ExactResult]:
    """What exact search finds within these limits."""
    problem = copy(free)  # with its prices
    problem.budget = Budget.of(limits)
    chain = chain_problem(problem)
    assert chain is not None
    return problem.budget, exact_search_of(chain)(chain, levels=1, near=0, bins=bins)


def check_space(name: str, number: int, seed: int, problems: int = PER) -> dict[str, Any]:
    """The row of one small space: how its problems came out, and those in which exact search and brute force disagree."""
    rng, start = Random(f"{seed} {name} {number}"), time.process_time()
    space, table = small_space(name, rng), LatencyTable.load(DEFAULT_TABLE)
    side = rng.choice((320, 416, 640))
    frame = Frame(image_size=side) if rng.random() < 0.5 else None
    necks = isinstance(space, GiraffeSpace)
    if isinstance(space, GiraffeSpace):
        frame = _frame(side, rng)
        space = space.in_frame(frame)
    score = rng.choice(SCORES if number < ADDED else (*SCORES, *ADDED_SCORES, *ADDED_SCORES))
    weights = (*(rng.choice((0.0, 0.5, 1.0, 4.0, 16.0)) for _ in range(4)), 1.0)
    options: dict[str, object] = {"level_weights": weights} if score in ("mae", *ADDED_SCORES) else {}
    if score == "mae_neck":
        frame, options = frame or Frame(image_size=side), {"level_weights": weights[2:]}
    limited = WHOLE + PARTS + (BEHIND if frame is not None else ())
    free = make_problem(space, Budget.of(dict.fromkeys(limited, 1e9)), score, options, table, frame, side)
    # Depthwise units have shortcuts that depend on widths: mae_residual is no sum there.
    chain = chain_problem(free)
    weighs = chain is not None and weighs_necks(chain)
    if chain is None or (weighs and number < SEEN):
        score, options = "level_balance", {"level_weights": weights}
        free = make_problem(space, free.budget, score, options, table, frame, side)
    every = free.evaluate(members(space, free))
    counts: Counter[str] = Counter()
    cases: list[object] = []
    for _ in range(problems):
        limits = draw_limits(every, free.metrics, limited, rng, necks)
        while weighs and number >= SEEN and any(isinstance(limit, list) for limit in limits.values()):  # a least
            limits = draw_limits(every, free.metrics, limited, rng, necks)
        bins = rng.choice((3, 8, 64, 256))
        try:
            budget, found = _searched(free, limits, bins)
        except UserError:  # no neck is the best for all of them
            limits = dict([*limits.items()][:1])
            budget, found = _searched(free, limits, bins)
        inside = admitted(budget, free.metrics, every)
        best = float(every.score[inside].max()) if inside.any() else None
        outcome = "unproved" if found.unproven else "nothing" if found.impossible else "proved"
        counts[outcome] += 1
        value = found.best.score if found.best is not None else None
        slack = 1e-8 * max(abs(best or 0.0), 1.0)
        right = (
            value is None
            if best is None
            else outcome == "unproved" or (value is not None and abs(value - best) <= slack)
        )
        right = right and (best is None or (found.upper >= best - slack and (value is None or value <= best + slack)))
        right = right and (found.best is None or budget.admits(found.best.metrics))
        if not right:
            cases.append({"limits": limits, "exact": value, "upper": found.upper, "brute": best, "outcome": outcome})
    seconds = round(time.process_time() - start, 2)
    told = {"space": name, "number": number, "members": len(every), "framed": "yes" if frame else "no", "score": score}
    states = {state: counts[state] for state in ("proved", "nothing", "unproved")}
    known = {"cases": json.dumps(cases) if cases else "", "seconds": seconds, "seed": seed, "commit": commit()[:12]}
    return told | {"problems": problems} | states | {"wrong": len(cases)} | known


def report(rows: list[dict[str, str]]) -> str:
    """The part of the page: by space how many problems, and how they came out."""
    names = ("problems", "proved", "nothing", "unproved", "wrong")

    def sums(some: list[dict[str, str]]) -> list[str]:
        return [f"{sum(int(row[name]) for row in some):,}" for name in names]

    lines = [
        "| space | small spaces | members | problems | proved | nothing fits | unproved | disagree | CPU s |",
        "|---" * 9 + "|",
    ]
    groups = [(name, [row for row in rows if row["space"] == name]) for name in space_names()]
    for name, some in [*groups, ("all", rows)]:
        if some:
            sizes, seconds = [int(row["members"]) for row in some], sum(float(row["seconds"]) for row in some)
            span = f"{min(sizes):,} to {max(sizes):,}"
            lines.append(f"| {name} | {len(some)} | {span} | {' | '.join(sums(some))} | {seconds:.0f} |")
    return "\n".join(lines)


def main(words: list[str]) -> None:
    """Add the missing rows; UserError for an unknown space."""
    given = options_of(words, {"problems": 10_000, "most": 10**9, "spaces": "", "seed": 0, "folder": str(HERE)})
    names = [name for name in chain_names() if name in chosen(given["spaces"], chain_names(), "spaces")]
    folder, seed = Path(given["folder"]), given["seed"]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "brute_force.csv"
    rows = read_rows(path)
    done = {(row["space"], int(row["number"])) for row in rows if int(row["seed"]) == seed}
    each = math.ceil(given["problems"] / (PER * len(chain_names())))
    missing = [(name, number) for number in range(each) for name in names if (name, number) not in done]
    for name, number in missing[: given["most"]]:
        row = check_space(name, number, seed)
        rows.append({key: str(value) for key, value in row.items()})
        write_atomic(path, csv_text([COLUMNS, *([row[key] for key in COLUMNS] for row in rows)]))
        print(f"{name} {number}: {row['problems']} problems, {row['wrong']} disagree ({row['seconds']} s)", flush=True)
    write_part(folder / "README.md", "brute force", report(rows))
    wrong = sum(int(row["wrong"]) for row in rows)
    print(f"{path}: {sum(int(row['problems']) for row in rows):,} problems, {wrong} disagree")


if __name__ == "__main__":
    run(main)
