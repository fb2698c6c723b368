"""python -m experiments.report: every table as Markdown and picture: published numbers, costs, our own AP with intervals."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from experiments.command import run
from experiments.costs import HARDWARE, cost_rows
from experiments.queue import RESULTS, read_results
from experiments.result_plots import draw_table, interval
from experiments.scales import load_scale, scale_names
from experiments.tables import Table, load_table, table_names
from nas.files import write_atomic


def found_by_scale(table: Table) -> dict[tuple[str, str], dict[str, list[float]]]:
    """AP in percent of every seed: (scale, data) -> row -> values, in the order of the scales."""
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in read_results(table.name):
        found[line["scale"], line["data"]][line["row"]].append(100 * float(line["ap"]))
    return dict(sorted(found.items(), key=lambda item: scale_names().index(item[0][0])))


def draw(table: Table) -> list[Path]:
    """A picture for every scale at which some row has several seeds."""
    paths = []
    for (scale, data), rows in found_by_scale(table).items():
        if any(len(values) > 1 for values in rows.values()):
            title = f"ours, {scale} ({data})"
            paths.append(draw_table(table, title, rows, RESULTS / "plots" / f"{table.name}-{scale}-{data}.png"))
    return paths


def markdown(table: Table) -> str:
    """One table: published and predicted costs, then AP on the test split by scale."""
    found = found_by_scale(table)
    scales = list(found)
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
        cells = [_linked(table, row["row"]) + (" *" if row["ambiguous"] else ""), _number(row["published"].get("ap"))]
        for metric, digits in (("latency_ms", 2), ("flops_g", 1)):
            error = row["error"].get(metric)
            ours = f"{row['ours'][metric]:.{digits}f}" + (f" ({100 * error:+.1f} %)" if error is not None else "")
            cells += [_number(row["published"].get(metric)), ours]
        for scale, data in scales:
            cells.append(_with_interval(found[scale, data].get(row["row"], [])))
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *_footnotes(table, scales)]
    pictures = [RESULTS / "plots" / f"{table.name}-{scale}-{data}.png" for scale, data in scales]
    lines += [f"\n![{table.title}: AP with intervals](plots/{path.name})" for path in pictures if path.is_file()]
    return "\n".join(lines) + "\n"


def _footnotes(table: Table, scales: list[tuple[str, str]]) -> list[str]:
    notes = [f"\\* ambiguous: {row.name}: {row.ambiguous}." for row in table.rows if row.ambiguous]
    notes += [f"Scale {name}: {load_scale(name).note}." for name in dict.fromkeys(scale for scale, _ in scales)]
    return [note + "  " for note in notes]


def _linked(table: Table, row: str) -> str:
    """The row's name, as a link where it has a model card."""
    card = RESULTS / "cards" / f"{table.name}-{table.row(row).key}.md"
    return f"[{row}](cards/{card.name})" if card.is_file() else row


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
    for name in names if not arguments else []:
        draw(load_table(name))
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
