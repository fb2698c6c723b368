"""How much a proof may take: steps, labels, memory; and its work, counted: a limit that does not depend on the clock, one that
does, a stop, and words for the screen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Steps that a search makes unless told: about two minutes of one core.
STEPS = 2_000_000_000
#: Labels that it holds at a time.
MOST_LABELS = 2_000_000
#: Numbers that all its bounds together may hold.
CELLS = 100_000_000
#: Steps between two looks at what to tell.
_EVERY = 20_000_000


class Halt(Exception):
    """The computation ends before it is done: its steps are spent, or (`interrupted`) somebody asked it to stop."""

    def __init__(self, reason: str, interrupted: bool) -> None:
        super().__init__(reason)
        self.interrupted = interrupted


class Effort:
    """Counts steps of some 50 ns each: what is done in bulk counts by what it is measured to take.

    limit: steps that may be made; on_step: told what goes on; stop: asked now and then whether to end; seconds: of this
    process's CPU time that may pass from now on, without end unless told.
    """

    def __init__(
        self,
        limit: float = float("inf"),
        on_step: Callable[[str], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
        seconds: float = float("inf"),
    ) -> None:
        self.limit, self.steps = limit, 0
        self.seconds, self._end = seconds, time.process_time() + seconds
        self._tell, self._stop, self._told, self._doing = on_step, stop, 0, ""

    def tell(self, doing: str) -> None:
        """Say what begins now."""
        self._doing, self._told = doing, self.steps
        if self._tell is not None:
            self._tell(doing)

    @contextmanager
    def at_most(self, steps: int) -> Iterator[None]:
        """What is done inside may make so many steps of what is left; a Halt for that leaves the rest to others."""
        limit, self.limit = self.limit, min(self.limit, self.steps + steps)
        try:
            yield
        finally:
            self.limit = limit

    @property
    def spent(self) -> bool:
        """Whether nothing is left of a limit."""
        return self.steps > self.limit or self.late

    @property
    def late(self) -> bool:
        """Whether the seconds are over; the clock is asked only where they have an end."""
        return self.seconds < float("inf") and time.process_time() > self._end

    def spend(self, steps: int, standing: str = "") -> None:
        """Count steps; raises Halt if they are too many or if somebody asked to stop. standing: how far it has come."""
        self.steps += steps
        if self._stop():
            raise Halt("stopped", True)
        if self.steps > self.limit:
            raise Halt(
                f"the limit of {self.limit:,.0f} steps (searcher option steps) ended it while {self._doing}", False
            )
        if self.late:
            raise Halt(
                f"the limit of {self.seconds:g} CPU seconds (searcher option seconds) ended it while {self._doing}",
                False,
            )
        if self._tell is not None and self.steps - self._told > _EVERY:
            self._told = self.steps
            self._tell(f"{self._doing}{', ' if standing else ''}{standing} ({self.steps / 1e6:,.0f} M steps)")
