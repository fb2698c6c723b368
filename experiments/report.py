"""python -m experiments.report: every table as Markdown and picture: published numbers, costs, our own AP with intervals."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from experiments.command import run
from experiments.costs import HARDWARE, cost_rows
from experiments.data import RESULTS
from experiments.model_cards import card_name
from experiments.queue import Trainings, read_results
from experiments.result_plots import draw_table, interval
from experiments.scales import load_scale, scale_names
from experiments.tables import Table, load_table, table_names
from nas.files import write_atomic

#: Costs in their columns: our name, the published one, the head, digits.
COSTS = (("latency_ms", "ms", 2), ("flops_g", "G", 1), ("params_m", "M", 1))


def found_by_scale(table: Table) -> dict[str, dict[tuple[str, str], list[float]]]:
    """AP in percent of every seed: scale -> (row, data) -> values, of lines that belong to the rows as they are now."""
    scales = {line["scale"] for line in read_results(table.name, RESULTS)}
    found = {}
    for name in (name for name in scale_names() if name in scales):
        values: dict[tuple[str, str], list[float]] = defaultdict(list)
        for line in _trainings(name).results(table.name, RESULTS):
            values[line["row"], line["data"]].append(100 * float(line["ap"]))
        found[name] = dict(values)
    return found


@lru_cache
def _trainings(scale: str) -> Trainings:
    return Trainings(load_scale(scale))


def columns(table: Table) -> list[tuple[str, str, dict[str, list[float]]]]:
    """(scale, data, row -> APs) of every column of results; APs of a smoke test are none."""
    result = []
    for scale, values in found_by_scale(table).items():
        if load_scale(scale).smoke:
            continue
        for data in sorted({data for _, data in values}):
            result.append((scale, data, {row: aps for (row, used), aps in values.items() if used == data}))
    return result


def draw(table: Table) -> list[Path]:
    """A picture for every column in which rows with several seeds can be compared."""
    return [
        draw_table(table, f"ours, {scale} ({data})", found, _picture(table, scale, data))
        for scale, data, found in columns(table)
        if sum(len(values) > 1 for values in found.values()) > 1
    ]


def markdown(table: Table) -> str:
    """One table: published and predicted costs, then AP on the test split by scale."""
    results = columns(table)
    costs = [cost for cost in COSTS if cost[0] != "params_m" or any(cost[0] in row.published for row in table.rows)]
    heads = ["row", "published AP", *(head for _, unit, _ in costs for head in (f"published {unit}", f"{unit} (ours)"))]
    heads += [f"AP {scale} ({data})" for scale, data, _ in results]
    lines = [f"## {table.title}", "", f"Source: {table.source}.", "", table.reading.strip(), "",
             "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]  # fmt: skip
    for row in cost_rows(table):
        cells = [row["row"] + (" *" if row["ambiguous"] else ""), _number(row["published"].get("ap"))]
        for metric, _, digits in costs:
            error = row["error"].get(metric)
            ours = f"{row['ours'][metric]:.{digits}f}" + (f" ({100 * error:+.1f} %)" if error is not None else "")
            cells += [_number(row["published"].get(metric)), ours]
        cells += [_cell(table, row["row"], scale, found.get(row["row"], [])) for scale, _, found in results]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *_footnotes(table, [scale for scale, _, _ in results])]
    pictures = [_picture(table, scale, data) for scale, data, _ in results]
    lines += [f"\n![{table.title}: AP with intervals](plots/{path.name})" for path in pictures if path.is_file()]
    return "\n".join(lines) + "\n"


def cost_errors() -> str:
    """How far the predicted costs of all rows are from the published ones."""
    rows = [row for name in table_names() for row in cost_rows(load_table(name))]
    clear = [row for row in rows if not row["ambiguous"]]
    parts = []
    for metric, unit in (("latency_ms", "milliseconds"), ("flops_g", "FLOPs")):
        errors = [[abs(row["error"][metric]) for row in group if metric in row["error"]] for group in (clear, rows)]
        means = [100 * sum(values) / len(values) for values in errors]
        parts.append(f"{unit} {means[0]:.1f} % over {len(errors[0])} clear rows (worst {100 * max(errors[0]):.1f} %), "
                     f"{means[1]:.1f} % over all {len(errors[1])}")  # fmt: skip
    return (
        f"Mean distance of our costs from the published ones: {'; '.join(parts)}. Many rows are the same network, and T, S, M "
        "and L are among the points that the latency table was calibrated with."
    )


def _picture(table: Table, scale: str, data: str) -> Path:
    return RESULTS / "plots" / f"{table.name}-{scale}-{data}.png"


def _cell(table: Table, row: str, scale: str, values: list[float]) -> str:
    """Mean AP with its interval, as a link where the training has a model card."""
    if not values:
        return "waits"
    mean, half = interval(values)
    text = f"{mean:.1f}" if math.isnan(half) else f"{mean:.1f} ± {half:.1f} (n={len(values)})"
    trainings = _trainings(scale)
    for other, same in trainings.rows[trainings.recipes[table.name, row]]:
        card = RESULTS / "cards" / f"{card_name(scale, other.name, same.name)}.md"
        if card.is_file():
            return f"[{text}](cards/{card.name})"
    return text


def _footnotes(table: Table, scales: list[str]) -> list[str]:
    notes = [f"\\* ambiguous: {row.name}: {row.ambiguous}." for row in table.rows if row.ambiguous]
    notes += [f"Scale {name}: {load_scale(name).note}." for name in dict.fromkeys(scales)]
    return [note + "  " for note in notes]


def _number(value: Any) -> str:
    return "" if value is None else f"{value:g}"


def main(arguments: list[str]) -> None:
    """Print the named tables (default: all, which also writes results/README.md and its pictures)."""
    tables = [load_table(name) for name in arguments or table_names()]
    if not arguments:
        for table in tables:
            draw(table)
    text = (
        "# Tables\n\nMilliseconds are predictions of "
        f"`{HARDWARE}`; G is 2 x MACs of the deployed form, M its millions of parameters. AP is COCO AP of our own short runs on "
        "the test split, in percent, with the 95 % interval of the mean where there are several seeds: it does not reproduce "
        "COCO numbers. Rows of several tables that are the same training share its result. Made "
        "by `python -m experiments.report`; single lines with seed, commit, device and seconds are in the CSV files beside "
        f"this page.\n\n{cost_errors()}\n\n"
    )
    text += "\n".join(map(markdown, tables))
    if not arguments:
        write_atomic(RESULTS / "README.md", text)
    print(text)


if __name__ == "__main__":
    run(main)
