"""A search on the terminal: live progress, TensorBoard, the closing table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from nas.commands.search_files import SHOWN, decorate_search, shape_of, until_boxes, write_search
from nas.report.search import Mark
from nas.searchers.loop import Progress as Standing
from nas.searchers.run import SearchResult, run_search
from nas.searchers.settings import SearchSettings


def search_with_screen(settings: SearchSettings, folder: Path, progress: bool = True) -> SearchResult:
    """Run or resume a search in `folder`, show it, write its files, print the result.

    Raises KeyboardInterrupt after an interrupted search has written everything.
    """
    console = Console()
    with TensorBoard(folder) as board, Bar(console, settings.evaluations, progress) as bar:

        def show(standing: Standing) -> None:
            bar.show(standing)
            board.show(standing)

        result = run_search(settings, folder / "state.npz", show)
    write_search(result, folder)
    decoration = decorate_search(result, folder)
    print_result(console, result, decoration.marks, folder)
    for warning in decoration.warnings:
        console.print(f"warning   {warning}", highlight=False, markup=False)
    if result.outcome.interrupted:
        raise KeyboardInterrupt
    return result


class Bar:
    """One line that tells rate, best score and which limit binds."""

    def __init__(self, console: Console, total: int, shown: bool) -> None:
        columns = (TextColumn("[bold]search"), BarColumn(), TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
                   TextColumn("{task.fields[text]}"), TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
        self._progress = Progress(*columns, console=console, disable=not shown, refresh_per_second=4)
        self._task = self._progress.add_task("search", total=total, text="")

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def show(self, standing: Standing) -> None:
        """Bring the line up to date; the first call draws it, so that an early error stands alone."""
        self._progress.start()
        text = f"{standing.rate:,.0f}/s"
        if standing.best is None:
            text += f"  nothing fits yet (closest {100 * standing.closest:.0f} % over)"
        else:
            text += f"  best {standing.best['score']:.3f}  binding: {', '.join(standing.binding) or 'none'}"
        text += f"  {standing.stage}" if standing.stage else ""
        self._progress.update(self._task, completed=standing.evaluated, text=text)


class TensorBoard:
    """Scalars of a search, at most one point per thousand evaluations; needs no torch."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._next = folder, 0

    def __enter__(self) -> TensorBoard:
        from tensorboard.summary import Writer

        self._writer = Writer(str(self._folder))
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def show(self, standing: Standing) -> None:
        """Write the best candidate's numbers."""
        if standing.evaluated < self._next or standing.best is None:
            return
        self._next = standing.evaluated + 1000
        for name, value in standing.best.items():
            self._writer.add_scalar(f"best/{name}", value, standing.evaluated)
        self._writer.add_scalar("search/candidates_per_second", standing.rate, standing.evaluated)


def print_result(console: Console, result: SearchResult, marks: Sequence[Mark], folder: Path) -> None:
    """The winner beside the published networks, its limits, and where the files are."""
    table = Table(title=f"best of {result.outcome.evaluated:,} in {result.outcome.seconds:.1f} s, {result.table.name}")
    others = [name for name in result.settings.budget.metrics if name not in SHOWN]
    for head in ("network", "score", "ms", "GFLOPs", "params M", "layers", "rho", *others):
        table.add_column(head, justify="left" if head == "network" else "right", overflow="fold")
    rows = [("winner", result.best.score, result.best.metrics), *((m.name, m.score, m.metrics) for m in marks)]
    for name, score, metrics in rows:
        values = [f"{metrics[key]:.{digits}f}" for key, digits in zip(SHOWN, (3, 2, 2, 0, 4), strict=True)]
        table.add_row(name, f"{score:.3f}", *values, *(f"{metrics[key]:.4g}" for key in others))
    console.print(table)
    error = result.table.header.error_percent
    margin = f" (this table's mean error: {error:.1f} %)" if error is not None else ""
    console.print(f"shape     {shape_of(result.best.spec)}")
    binding = ", ".join(result.binding) or "none"
    console.print(f"limits    {result.settings.budget}; binding: {binding}{margin}", highlight=False)
    if (until := until_boxes(result)) is not None:
        console.print(f"boxes     {until:.3f} ms with what follows the network (e2e_ms)", highlight=False)
    if result.proof:
        console.print(f"proof     {result.proof}", highlight=False)
    near = [candidate for candidate in result.near if candidate.digest != result.best.digest]
    for candidate in near[:3]:
        line = f"near      {candidate.score:.3f}  {candidate.metrics['latency_ms']:.3f} ms  {shape_of(candidate.spec)}"
        console.print(line, highlight=False)
    for note in result.notes:
        console.print(f"note      {note}", highlight=False)
    if result.settings.scorer_name in ("mae", "layers", "params"):
        console.print(
            "score     among equally fast networks it has not told the better ones (experiments/scorer_truth): "
            "python -m nas.select trains finalists on your data",
            highlight=False,
        )
    console.print(
        f"files     {folder}/best.yaml, report.html, pareto.csv, front.jsonl, trace.csv, summary.json",
        highlight=False,
        soft_wrap=True,
    )
