"""What the sweep comes to: a line a setting, the best beside the shipped one on seeds that chose nothing, and the cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from experiments.result_plots import interval
from experiments.tuning.problems import CASES, LONG, SETTINGS, SHIPPED, Run, Setting

#: Evaluations of a run by case, in a comparison.
Lengths = Mapping[str, int]
Rows = Sequence[Mapping[str, str]]
SWEPT: Lengths = {name: case.evaluations for name, case in CASES.items()}
LASTING: Lengths = {name: LONG for name, case in CASES.items() if case.quick}


def run_of(row: Mapping[str, str]) -> Run:
    """Which run a row is."""
    setting = Setting(int(row["population"]), float(row["crossover"]), int(row["minor_from"]))
    return Run(row["case"], setting, int(row["seed"]), int(row["evaluations"]))


def gaps(rows: Rows) -> dict[Run, float]:
    """How far each run ended below the proved optimum, in percent of it."""
    return {run_of(row): 100 * (1 - float(row["best"]) / float(row["optimum"])) for row in rows}


def seed_gaps(known: Mapping[Run, float], setting: Setting, lengths: Lengths, seeds: range) -> list[float]:
    """The mean gap over the problems, for each seed that has run on all of them."""
    wanted = ([Run(name, setting, seed, count) for name, count in lengths.items()] for seed in seeds)
    whole = (runs for runs in wanted if all(each in known for each in runs))
    return [sum(known[each] for each in runs) / len(runs) for runs in whole]


def mean_gap(known: Mapping[Run, float], setting: Setting, lengths: Lengths, seeds: range) -> float:
    """The mean of `seed_gaps`; infinite without any."""
    found = seed_gaps(known, setting, lengths, seeds)
    return sum(found) / len(found) if found else math.inf


def best_of(rows: Rows, seeds: int) -> Setting:
    """The setting of the smallest mean gap in the sweep."""
    known = gaps(rows)
    return min(SETTINGS, key=lambda setting: mean_gap(known, setting, SWEPT, range(seeds)))


def behind(known: Mapping[Run, float], best: Setting, lengths: Lengths, seeds: range) -> str:
    """By how much the shipped setting ends below the best one, seed by seed."""
    pair = (seed_gaps(known, setting, lengths, seeds) for setting in (SHIPPED, best))
    apart = [shipped - chosen for shipped, chosen in zip(*pair, strict=True)]
    return "not run yet" if not apart else f"{_about(apart)} ({len(apart)} seeds)"


def part(rows: Rows, seeds: int) -> str:
    """The table of settings, the comparison of the best with the shipped one, and what all of it cost."""
    known, best = gaps(rows), best_of(rows, seeds)
    swept, fresh = range(seeds), range(seeds, max((int(row["seed"]) for row in rows), default=0) + 1)
    heads = ("population", "crossover", "minor_from", *CASES, f"mean gap, {seeds} seeds")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for setting in sorted(SETTINGS, key=lambda setting: mean_gap(known, setting, SWEPT, swept)):
        if found := seed_gaps(known, setting, SWEPT, swept):
            each = [f"{mean_gap(known, setting, {name: count}, swept):.3f}" for name, count in SWEPT.items()]
            mark = " (shipped)" * (setting == SHIPPED)
            cells = [
                f"{setting.population}{mark}",
                f"{setting.crossover:g}",
                f"{setting.minor_from:,}",
                *each,
                _about(found),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    seconds, count = sum(float(row["seconds"]) for row in rows), sum(int(row["evaluations"]) for row in rows)
    machines, commits = (sorted({row[name] for row in rows}) for name in ("machine", "commit"))
    told = [
        f"Smallest mean gap: {best}. In percent of the optimum the shipped setting ends behind it by",
        "",
        f"- {behind(known, best, SWEPT, swept)} in the sweep, whose seeds chose the best: too favourable to it;",
        f"- {behind(known, best, SWEPT, fresh)} with fresh seeds, as long as the sweep's runs;",
        f"- {behind(known, best, LASTING, fresh)} with fresh seeds after {LONG:,} evaluations, on {' and '.join(LASTING)}.",
        "",
        f"Cost: {len(rows)} runs, {count:,} evaluations, {seconds:,.0f} CPU seconds on {' and '.join(machines)}, commit "
        f"{', '.join(commits)}; the proofs of the optima come on top.",
    ]
    return "\n".join([*lines, "", *told])


def _about(values: Sequence[float]) -> str:
    """A mean with the half width of its 95 % interval, where there are several values."""
    mean, half = interval(values)
    return f"{mean:.3f}" if math.isnan(half) else f"{mean:.3f} ± {half:.3f}"
