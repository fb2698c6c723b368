"""The table of evidence: AP of every contestant with its spread over seeds, and the lead of the selected one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from experiments.evidence import read_record
from experiments.packed import read_packed
from experiments.selection.contestants import Contestant
from nas.errors import UserError
from nas.files import write_atomic


def write_report(contestants: Sequence[Contestant], table: Path, times: Path) -> str:
    """results.md beside the table; the text is returned. UserError if nothing is trained yet."""
    rows = read_packed(table)
    if not rows:
        raise UserError(f"{table} holds no run yet: python -m experiments.selection train")
    measured = read_record(times) if times.is_file() else {}
    lines = []
    for data in dict.fromkeys(one.data for one in contestants):
        chosen = [one for one in contestants if one.data == data]
        lines += section(data, chosen, [row for row in rows if row["data"] == data], measured.get(data, {}))
    text = "\n".join(lines) + "\n"
    write_atomic(table.with_name("results.md"), text)
    return text


def section(
    data: str, contestants: Sequence[Contestant], rows: Sequence[dict[str, Any]], measured: dict[str, Any]
) -> list[str]:
    """The lines of a data set: contestants by mean val AP, then what leads whom by how much."""
    runs = runs_of(contestants, rows)
    trained = by_val(contestants, runs)
    lines = [
        f"## {data}",
        "",
        "| network | family | ms, one session | seeds | val AP | test AP | over seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in trained:
        own = runs[one.digest]
        ms = measured.get("ms", {}).get(one.digest)
        tests = [row["test_ap"] for row in own]
        spread = f"{min(tests):.3f} to {max(tests):.3f}" if len(tests) > 1 else ""
        time = f"{ms:.2f}" if ms is not None else f"{one.ms:.2f} when drawn"
        lines.append(
            f"| {one.name} | {one.family} | {time} | {len(own)} | {val_ap(own):.3f} | {np.mean(tests):.3f} | {spread} |"
        )
    lines.append("")
    pair = selected_and_drawn(trained)
    if pair is not None:
        ours, theirs = ([row["test_ap"] for row in runs[one.digest]] for one in pair)
        lines += [
            f"nas.select leads {pair[1].name}, the best drawn network on val, by {lead(ours, theirs)} of test AP.",
            "",
        ]
    return lines


def runs_of(contestants: Sequence[Contestant], rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The runs of each contestant, by its digest."""
    return {one.digest: [row for row in rows if (row["data"], row["digest"]) == (one.data, one.digest)]
            for one in contestants}  # fmt: skip


def by_val(contestants: Sequence[Contestant], runs: Mapping[str, Sequence[dict[str, Any]]]) -> list[Contestant]:
    """Those that are trained, the highest mean validation AP first."""
    return sorted((one for one in contestants if runs[one.digest]), key=lambda one: -val_ap(runs[one.digest]))


def selected_and_drawn(trained: Sequence[Contestant]) -> tuple[Contestant, Contestant] | None:
    """The network of nas.select and the best drawn one, where both are trained; `trained` is in the order of val."""
    first = {one.family: one for one in reversed(trained)}
    return (first["selected"], first["drawn"]) if {"selected", "drawn"} <= first.keys() else None


def val_ap(rows: Sequence[dict[str, Any]]) -> float:
    """Validation AP at the end, the mean over seeds."""
    return float(np.mean([row["curve"][-1][1] for row in rows]))


def lead(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Difference of means with its 95 % interval (Welch), where both have several seeds."""
    difference = float(np.mean(ours) - np.mean(theirs))
    if min(len(ours), len(theirs)) < 2:
        return f"{difference:+.3f} (one seed: no interval)"
    interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return f"{difference:+.3f} (95 % interval {interval.low:+.3f} to {interval.high:+.3f}, {len(ours)} and {len(theirs)} seeds)"
