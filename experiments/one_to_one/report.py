"""What is lost without NMS, seed by seed, and the milliseconds of both files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

from experiments.evidence import read_record
from experiments.one_to_one.training import WITH_NMS, WITHOUT
from experiments.packed import read_packed
from experiments.result_plots import interval
from nas.errors import UserError
from nas.files import write_atomic

#: What the frames of a file are made of, and their sum.
STAGES = ("preprocess", "network", "postprocess", "frame")


def write_report(table: Path, times: Path) -> str:
    """results.md beside the table; the text is returned. UserError if nothing is trained yet."""
    rows = read_packed(table)
    if not rows:
        raise UserError(f"{table} holds no run yet: python -m experiments.one_to_one train")
    pairs = paired(rows)
    lines = ["| data | seeds | test AP with NMS | one-to-one | loss |", "|---|---|---|---|---|"]
    for data, found in pairs.items():
        with_nms, without = zip(*found, strict=True)
        lines.append(
            f"| {data} | {len(found)} | {mean(with_nms):.3f} | {mean(without):.3f} | {loss_text(losses(found))} |"
        )
    every = [loss for found in pairs.values() for loss in losses(found)]
    lines += ["", f"Mean paired loss over {len(every)} pairs: {loss_text(every)} of test AP.", ""] if every else [""]
    measured = read_record(times) if times.is_file() else {}
    if measured:
        lines += times_lines(measured)
    text = "\n".join(lines) + "\n"
    write_atomic(table.with_name("results.md"), text)
    return text


def paired(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Test AP (with NMS, without) of every seed of a data set that has both."""
    known = {(row["data"], row["seed"], row["name"]): float(row["test_ap"]) for row in rows}
    found: dict[str, list[tuple[float, float]]] = {}
    for (data, seed, name), ap in sorted(known.items()):
        if name == WITH_NMS and (data, seed, WITHOUT) in known:
            found.setdefault(data, []).append((ap, known[data, seed, WITHOUT]))
    return found


def losses(found: Sequence[tuple[float, float]]) -> list[float]:
    """What each seed loses without NMS, in AP."""
    return [with_nms - without for with_nms, without in found]


def loss_text(values: Sequence[float]) -> str:
    """Mean with its 95 % interval (t); of one pair the difference alone."""
    middle, half = interval(list(values))
    return f"{middle:+.3f} ({middle - half:+.3f} to {middle + half:+.3f})" if half == half else f"{middle:+.3f}"


def times_lines(measured: Mapping[str, Any]) -> list[str]:
    """The table of milliseconds at each score threshold: medians over the turns of a session."""
    lines = [f"| data | scores above | file | {' | '.join(f'{stage} ms' for stage in STAGES)} | test AP of the file |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for data, session in measured.items():
        for threshold, name in product(session["turns"], (WITH_NMS, WITHOUT)):
            turns = [turn[name] for turn in session["turns"][threshold]]
            cells = [f"{median(turn['milliseconds'][stage]['median'] for turn in turns):.3f}" for stage in STAGES]
            lines.append(f"| {data} | {threshold} | {name} | {' | '.join(cells)} | {turns[0]['ap']:.3f} |")
    machines = {
        f"{one['machine']['processor']}, {one['threads']} thread, {one['runtime']}" for one in measured.values()
    }
    return [*lines, "", f"Measured on {' and '.join(sorted(machines))}."]
