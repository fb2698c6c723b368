"""The search loop: ask, drop what was seen, evaluate, tell, remember; stops cleanly and resumes exactly."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np

from nas.searchers.base import (
    Candidate,
    Certificate,
    Individuals,
    Interrupted,
    Problem,
    Proposals,
    Searcher,
    excess,
)
from nas.searchers.history import Archive, History, load_arrays, save_arrays

#: Batches without a single new individual after which the space counts as exhausted.
_EXHAUSTED = 200


@dataclass(frozen=True)
class Progress:
    """Where a search stands; `best` are the metrics of the best candidate inside the budget, None if there is none.

    binding: limits that the best candidate uses up to within 2 %; closest: smallest excess over the budget seen so far;
    stage: what goes on after the evaluations, if anything does.
    """

    evaluated: int
    proposed: int
    evaluations: int
    seconds: float
    rate: float
    best: dict[str, float] | None
    binding: list[str]
    closest: float
    stage: str = ""


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found: the best candidate (None if nothing fits), the front of score against the budgeted metrics,
    and every evaluation (columns score, the metrics, excess). interrupted: stopped by Ctrl-C, may be resumed;
    exhausted: stopped because nothing new was proposed any more. Of exact search also its proof, and networks of other
    shapes that score within `near_share` of the best; unproven: why a search that tries to prove its optimum has no
    proof; impossible: nothing fits, and that is proven; open_levels: costs at which the front of exact search is not."""

    best: Candidate | None
    front: list[Candidate]
    history: History
    evaluated: int
    proposed: int
    seconds: float
    interrupted: bool
    exhausted: bool
    certificate: Certificate | None = None
    near: list[Candidate] = field(default_factory=list)
    near_share: float = 0.0
    unproven: str = ""
    impossible: bool = False
    open_levels: int = 0

    def __repr__(self) -> str:
        return f"SearchOutcome({self.best}, {len(self.front)} on the front, {self.evaluated} evaluated)"


def run_loop(
    problem: Problem,
    searcher: Searcher,
    evaluations: int,
    *,
    state: Path | None = None,
    identity: str = "",
    on_progress: Callable[[Progress], None] | None = None,
    save_every: float = 20.0,
    start: Individuals | None = None,
) -> SearchOutcome:
    """Evaluate `evaluations` distinct candidates and return what was found.

    start: individuals that stand in the place of the first proposals, whatever the searcher.

    state: a file that is written about every `save_every` seconds and at the end, and resumed from if it exists;
    `identity` (of space, budget, scorer, searcher, seed) must then be the same, else UserError. It never holds a part of a
    batch, so that a search that goes on further is the same as one that was told so at first. Results depend on neither
    workers nor interruptions. The first Ctrl-C ends after the running batch (or gives it up), the second at
    once.
    """
    history = History(("score", *problem.metrics, "excess"))
    archive = Archive(problem)
    seen: set[int] = set()
    proposed, idle, before = 0, 0, 0.0
    if state is not None and state.exists():
        stored = load_arrays(state, identity)
        proposed, idle, before = int(stored["counts"][0]), int(stored["counts"][1]), float(stored["seconds"][0])
        history.extend(stored["history"])
        seen.update(stored["seen"].tolist())
        archive.restore(stored)
        searcher.restore(_individuals(problem, "searcher.", stored))
    started = saved = time.monotonic()
    resumed = len(history)
    interrupted = cut = False

    def save() -> None:
        if state is None:
            return
        arrays = {
            "counts": np.array([proposed, idle]),
            "seconds": np.array([before + time.monotonic() - started]),
            "history": history.matrix(),
            "seen": np.fromiter(seen, dtype=np.uint64, count=len(seen)),
            **archive.state(),
        }
        for key, value in searcher.state().items():
            arrays["searcher." + key] = problem.pack(value) if key == "individuals" else value
        save_arrays(state, identity, arrays)

    def report() -> None:
        if on_progress is not None:
            seconds = time.monotonic() - started
            best = archive.best_metrics()
            on_progress(
                Progress(
                    len(history),
                    proposed,
                    evaluations,
                    before + seconds,
                    (len(history) - resumed) / max(seconds, 1e-9),
                    best,
                    problem.budget.binding(best) if best else [],
                    archive.closest,
                )
            )

    with interruptible() as stopping:
        while len(history) < evaluations and idle < _EXHAUSTED and not stopping():
            proposals = searcher.ask(proposed, searcher.batch)
            if start is not None and proposed < len(start):
                proposals = _begun(proposals, start[proposed:])
            identities = problem.identities(proposals.individuals).tolist()
            new = _first_seen(identities, seen)
            if cut := len(new) > evaluations - len(history):
                save()
                new = new[: evaluations - len(history)]
            fresh = proposals.take(np.array(new, dtype=np.int64))
            try:
                evaluation = problem.evaluate(fresh.individuals, stopping) if new else None
            except Interrupted:
                break
            proposed += len(proposals)
            idle = 0 if new else idle + 1
            if evaluation is not None:
                seen.update(identities[row] for row in new)
                outside = excess(problem, evaluation)
                history.extend(np.column_stack([evaluation.score, evaluation.metrics, outside]))
                archive.add(fresh, evaluation, outside)
                searcher.tell(fresh, evaluation)
            report()
            if time.monotonic() - saved > save_every:
                save()
                saved = time.monotonic()
        interrupted = len(history) < evaluations and idle < _EXHAUSTED
    if not cut:
        save()
    return SearchOutcome(
        archive.best(),
        archive.front(),
        history,
        len(history),
        proposed,
        before + time.monotonic() - started,
        interrupted,
        idle >= _EXHAUSTED,
    )


def _begun(proposals: Proposals, start: Individuals) -> Proposals:
    """The proposals with those to begin with in the place of the first ones."""
    count = min(len(start), len(proposals))
    individuals, parents = proposals.individuals.copy(), proposals.parents.copy()
    individuals[:count], parents[:count] = start[:count], -1
    return Proposals(individuals, proposals.born, parents)


def _first_seen(identities: list[int], seen: set[int]) -> list[int]:
    """Rows whose identity is new, the first of each."""
    rows, here = [], set()
    for row, identity in enumerate(identities):
        if identity not in seen and identity not in here:
            here.add(identity)
            rows.append(row)
    return rows


def _individuals(problem: Problem, prefix: str, stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    arrays = {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
    if "individuals" in arrays:
        arrays["individuals"] = problem.unpack(arrays["individuals"])
    return arrays


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag; the second is an ordinary KeyboardInterrupt. Only in the main thread."""
    asked = False

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, previous)
