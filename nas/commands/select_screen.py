"""A selection on the terminal: what it does, a live table of the rungs, what each rung decided."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from nas.selection.halving import RungResult, Standing
from nas.selection.portfolio import Finalist
from nas.selection.rungs import Plan


class Screen:
    """Shows a selection; a context that ends its live table. `shown` false leaves single lines."""

    def __init__(self, shown: bool) -> None:
        self._console, self._shown = Console(), shown
        self._live = Live(console=self._console, refresh_per_second=2, transient=True)
        self._plan: Plan | None = None
        self._finalists: tuple[Finalist, ...] = ()
        self._reached: dict[tuple[str, int], float] = {}
        self._dropped: dict[str, int] = {}

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if self._plan is not None and self._shown:
            self._console.print(self._table())

    def say(self, text: str) -> None:
        """One line above the table."""
        if self._shown:
            self._console.print(text, highlight=False, markup=False)

    def show_plan(self, plan: Plan, finalists: Sequence[Finalist], table: str) -> None:
        """What is going to be trained, before anything is."""
        self._plan, self._finalists = plan, tuple(finalists)
        rungs = ", ".join(f"{rung.entrants} to epoch {rung.epochs}" for rung in plan.rungs)
        self.say(
            f"{len(finalists)} networks priced by {table}; {rungs}: at most {plan.cost} epochs ({plan.exhaustive} for all)"
        )
        if self._shown and self._console.is_terminal:
            self._live.start()
            self._live.update(self._table())

    def show_standing(self, standing: Standing) -> None:
        """A training came to the end of its rung."""
        self._reached[standing.finalist.digest, standing.epochs] = standing.ap
        if self._live.is_started:
            self._live.update(self._table())
        else:
            self.say(f"epoch {standing.epochs}: {standing.finalist.name} AP {100 * standing.ap:.1f}")

    def show_rung(self, result: RungResult) -> None:
        """A rung is over."""
        kept = {finalist.digest for finalist in result.kept}
        for standing in result.standings:
            self._reached[standing.finalist.digest, result.epochs] = standing.ap
            if standing.finalist.digest not in kept:
                self._dropped[standing.finalist.digest] = result.epochs
        self.say(f"after epoch {result.epochs}: {', '.join(finalist.name for finalist in result.kept)}")
        if self._live.is_started:
            self._live.update(self._table())

    def _table(self) -> Table:
        assert self._plan is not None
        table = Table("network", "origin", "ms", *(f"AP at {rung.epochs}" for rung in self._plan.rungs))
        for finalist in self._finalists:
            aps = [self._reached.get((finalist.digest, rung.epochs)) for rung in self._plan.rungs]
            style = "dim" if finalist.digest in self._dropped else ""
            ms = f"{finalist.metrics['latency_ms']:.2f}"
            cells = ["" if ap is None else f"{100 * ap:.1f}" for ap in aps]
            table.add_row(finalist.name, finalist.origin, ms, *cells, style=style)
        return table
