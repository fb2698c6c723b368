"""The table of evidence: AP of every contestant with its spread over seeds, and the lead of the selected one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from experiments.evidence import read_record
from experiments.packed import read_packed
from experiments.selection.contestants import Contestant
from experiments.selection.standings import Standing, selected_and_drawn, standings
from nas.errors import UserError
from nas.files import write_atomic


def write_report(contestants: Sequence[Contestant], table: Path, times: Path) -> str:
    """results.md beside the table; the text is returned. UserError if nothing is trained yet."""
    rows = read_packed(table)
    if not rows:
        raise UserError(f"{table} holds no run yet: python -m experiments.selection train")
    measured = read_record(times) if times.is_file() else {}
    lines = []
    for data, trained in standings(contestants, rows).items():
        lines += section(data, trained, measured.get(data, {}))
    text = "\n".join(lines) + "\n"
    write_atomic(table.with_name("results.md"), text)
    return text


def section(data: str, trained: Sequence[Standing], measured: dict[str, Any]) -> list[str]:
    """The lines of a data set: contestants by mean val AP, then what leads whom by how much."""
    lines = [
        f"## {data}",
        "",
        "| network | family | ms, one session | seeds | val AP | test AP | over seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for standing in trained:
        one, tests = standing.contestant, standing.test_aps
        ms = measured.get("ms", {}).get(one.digest)
        spread = f"{min(tests):.3f} to {max(tests):.3f}" if len(tests) > 1 else ""
        time = f"{ms:.2f}" if ms is not None else f"{one.ms:.2f} when drawn"
        lines.append(
            f"| {one.name} | {one.family} | {time} | {len(tests)} | {standing.val_ap:.3f} | {np.mean(tests):.3f} | {spread} |"
        )
    lines.append("")
    pair = selected_and_drawn(trained)
    if pair is not None:
        ours, theirs = pair
        lines += [
            f"nas.select leads {theirs.contestant.name}, the best drawn network on val, by "
            f"{lead(ours.test_aps, theirs.test_aps)} of test AP.",
            "",
        ]
    return lines


def lead(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Difference of means with its 95 % interval (Welch), where both have several seeds."""
    difference = float(np.mean(ours) - np.mean(theirs))
    if min(len(ours), len(theirs)) < 2:
        return f"{difference:+.3f} (one seed: no interval)"
    interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return f"{difference:+.3f} (95 % interval {interval.low:+.3f} to {interval.high:+.3f}, {len(ours)} and {len(theirs)} seeds)"
