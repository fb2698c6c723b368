"""python -m experiments.report: every table as Markdown with published numbers, costs, and our own AP with intervals."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from experiments.command import run
from experiments.costs import HARDWARE, cost_rows
from experiments.queue import RESULTS, read_results
from experiments.scales import load_scale, scale_names
from experiments.tables import Table, load_table, table_names
from nas.files import write_atomic

#: Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval (nan for a single value)."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    quantile = _T95[min(len(values) - 2, len(_T95) - 1)]
    return mean, quantile * spread / math.sqrt(len(values))


def markdown(table: Table) -> str:
    """One table: published and predicted costs, then AP on the test split by scale."""
    by_row: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for line in read_results(table.name):
        by_row[line["row"], line["scale"], line["data"]].append(100 * float(line["ap"]))
    scales = sorted({(scale, data) for _, scale, data in by_row}, key=lambda pair: scale_names().index(pair[0]))
    heads = [
        "row",
        "published AP",
        "published ms",
        "ms (ours)",
        "published G",
        "G (ours)",
        *(f"AP {s} ({d})" for s, d in scales),
    ]
    lines = [f"## {table.title}", "", f"Source: {table.source}.", "", table.reading, "",
             "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]  # fmt: skip
    for row in cost_rows(table):
        cells = [row["row"] + (" *" if row["ambiguous"] else ""), _number(row["published"].get("ap"))]
        for metric, digits in (("latency_ms", 2), ("flops_g", 1)):
            error = row["error"].get(metric)
            ours = f"{row['ours'][metric]:.{digits}f}" + (f" ({100 * error:+.1f} %)" if error is not None else "")
            cells += [_number(row["published"].get(metric)), ours]
        for scale, data in scales:
            values = by_row.get((row["row"], scale, data), [])
            cells.append(_with_interval(values))
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *_footnotes(table, scales)]
    return "\n".join(lines) + "\n"


def _footnotes(table: Table, scales: list[tuple[str, str]]) -> list[str]:
    notes = [f"\\* ambiguous: {row.name}: {row.ambiguous}." for row in table.rows if row.ambiguous]
    notes += [f"Scale {name}: {load_scale(name).note}." for name in dict.fromkeys(scale for scale, _ in scales)]
    return [note + "  " for note in notes]


def _number(value: Any) -> str:
    return "" if value is None else f"{value:g}"


def _with_interval(values: list[float]) -> str:
    if not values:
        return "waits"
    mean, half = interval(values)
    return f"{mean:.1f}" if math.isnan(half) else f"{mean:.1f} ± {half:.1f} (n={len(values)})"


def main(arguments: list[str]) -> None:
    """Write results/README.md for the named tables (default: all) and print it."""
    names = arguments or list(table_names())
    text = (
        "# Tables\n\nMilliseconds are predictions of "
        f"`{HARDWARE}`; G is 2 x MACs of the deployed form. AP is COCO AP of our own short runs on the test "
        "split, in percent, with the 95 % interval of the mean where there are several seeds: it does not reproduce COCO "
        "numbers, and scale cpu ranks nothing. Made by `python -m experiments.report`; "
        "single lines with seed, commit, device and seconds are in the CSV files beside this page.\n\n"
    )
    text += "\n".join(markdown(load_table(name)) for name in names)
    if not arguments:
        write_atomic(RESULTS / "README.md", text)
    print(text)


if __name__ == "__main__":
    run(main)
