"""python -m nas.benchmark model=best.safetensors data=FOLDER: AP and milliseconds of it as deployed, in every format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Column, Table

from nas.commands.benchmark import BenchmarkCommand, benchmark_in
from nas.commands.benchmark_files import STAGES, verdict_lines
from nas.config import Job, launch

if TYPE_CHECKING:
    from nas.commands.benchmark_files import Benchmark


def run(command: BenchmarkCommand, job: Job) -> None:
    """Benchmark into Hydra's run folder and print the table."""
    console = Console()
    with console.status("reading model and data") as status:
        say = (lambda text: status.update(text)) if console.is_terminal or not command.progress else print
        result = benchmark_in(command, job.folder, job.given, say)
    _show(console, result)
    for line in [*verdict_lines(result), f"report: {result.folder / 'report.html'}"]:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _show(console: Console, result: Benchmark) -> None:
    times = (f"{name}\nms" for name in ("pre", "net", "post", "frame"))
    head = ("AP", "lost", *times, "found\nagain", "file\nMB", "memory\nMB")
    table = Table(Column("row", no_wrap=True), *head, box=box.SIMPLE, collapse_padding=True, pad_edge=False)
    for row in result.done:
        stages = [f"{row.ms(stage):.2f}" for stage in STAGES]
        matched = f"{100 * row.parity.matched:.1f}%" if row.parity else ""
        memory = "" if row.memory_mb is None else f"{row.memory_mb:.0f}"
        lost = f"{result.lost(row):.2f}"
        style = None if result.recommended(row) else "yellow"
        table.add_row(row.name, f"{100 * (row.ap or 0):.1f}", lost, *stages, matched, f"{row.megabytes or 0:.2f}", memory,
                      style=style)  # fmt: skip
    console.print(table, markup=False)
    if result.done:
        first = result.done[0]
        told = f"{first.images} images of {result.data}; one at a time, {first.threads} threads"
        console.print(told, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    launch("benchmark", BenchmarkCommand, run)
