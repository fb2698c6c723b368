"""Many workers, on any number of machines, share the tasks of one Optuna study; a worker may die or join at any time.

Every task is a trial. Who evaluates one holds a lease on it: a number that a thread keeps raising. Another worker that
has not seen it rise for `lease` seconds of its own clock (no clock is compared with another) fails the trial and queues
its task again. The storage decides every race: of two that finish one trial, one is refused. So no task is lost, and
none counts twice: the first completed trial of a task is its result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from nas.errors import UserError

#: What an evaluation gives: objective values, and attributes to keep with the trial.
Result = tuple[Sequence[float], Mapping[str, object]]

#: What a storage raises that cannot read or write: a full disk, a server that went away.
STORAGE_FAILURES = (StorageInternalError, SQLAlchemyError)

_OPEN = (TrialState.WAITING, TrialState.RUNNING)


@contextmanager
def storage_told(doing: str = "the storage of the study failed") -> Iterator[None]:
    """Tell in one line what a storage refuses; for a block, or as the decorator of a function."""
    try:
        yield
    except STORAGE_FAILURES as error:
        hidden = isinstance(error, StorageInternalError) and error.__cause__  # Optuna's own words hide the database's
        raise UserError(f"{doing}: {str(hidden or error).splitlines()[0]}") from None


class SharedStudy:
    """The tasks of a study, `tasks` in number, that other workers may work on too.

    A task is named by the number of its first trial. lease: seconds without a sign of life after which a trial is taken
    from its worker; attempts: failures of one task after which it is given up.
    """

    def __init__(self, study: optuna.Study, tasks: int, lease: float = 60.0, attempts: int = 5) -> None:
        self.study, self.tasks, self.lease, self.attempts = study, tasks, lease, attempts
        self._signs: dict[int, tuple[int, float]] = {}

    # ------------------------------------------------------------------ what there is

    def by_task(self) -> dict[int, list[FrozenTrial]]:
        """All trials of each task, in the order of their numbers; trials that stand for no task are left out."""
        found: dict[int, list[FrozenTrial]] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if "task" in trial.user_attrs:
                found.setdefault(trial.user_attrs["task"], []).append(trial)
            elif len(found) < self.tasks:
                found[trial.number] = [trial]
        return found

    def place(self, trial: Trial | FrozenTrial) -> int:
        """Which of the tasks (from 0) a trial stands for; the same for every worker."""
        return sorted(self.by_task()).index(trial.user_attrs.get("task", trial.number))

    def results(self) -> list[FrozenTrial]:
        """The first completed trial of every task that has one, in the order of the tasks."""
        done = {
            task: next((trial for trial in trials if trial.state == TrialState.COMPLETE), None)
            for task, trials in self.by_task().items()
        }
        return [trial for _, trial in sorted(done.items()) if trial is not None]

    def unfinished(self) -> int:
        """Tasks that are neither completed nor given up."""
        found = self.by_task()
        settled = sum(
            any(trial.state == TrialState.COMPLETE for trial in trials) or self._given_up(trials)
            for trials in found.values()
        )
        return self.tasks - settled

    def _given_up(self, trials: list[FrozenTrial]) -> bool:
        return (
            sum(trial.state == TrialState.FAIL and "void" not in trial.user_attrs for trial in trials) >= self.attempts
        )

    # ------------------------------------------------------------------ claiming and finishing

    def claim(self) -> Trial | None:
        """A trial that is now this worker's to evaluate; None if there is nothing to claim at the moment."""
        while True:
            self._take_back()
            found = self.by_task()
            waiting = any(trial.state == TrialState.WAITING for trials in found.values() for trial in trials)
            if len(found) >= self.tasks and not waiting:
                return None
            trial = self.study.ask()
            if self._needed(trial):
                return trial
            trial.set_user_attr("void", True)
            self._fail(trial.number)

    def finish(self, trial: Trial, values: Sequence[float], attributes: Mapping[str, object]) -> bool:
        """Record a result; False if the trial had been taken from this worker meanwhile (then it counts for nothing)."""
        try:
            for key, value in attributes.items():
                trial.set_user_attr(key, value)
            self.study.tell(trial, list(values))
        except (UpdateFinishedTrialError, ValueError):
            if self._state(trial.number).is_finished():
                return False
            raise
        return True

    def work(
        self,
        evaluate: Callable[[Trial], Result],
        stop: Callable[[], bool] = lambda: False,
        on_result: Callable[[int], None] | None = None,
        poll: float = 0.5,
    ) -> int:
        """Evaluate tasks until all are finished by anybody; returns how many this worker finished.

        An error in `evaluate` fails the trial, whose task others will try again, and is raised.
        """
        return self.work_together(lambda trials: [evaluate(trial) for trial in trials], stop, on_result, poll)

    def work_together(
        self,
        evaluate: Callable[[Sequence[Trial]], Sequence[Result]],
        stop: Callable[[], bool] = lambda: False,
        on_result: Callable[[int], None] | None = None,
        poll: float = 0.5,
        most: int = 1,
        last: Callable[[Trial], bool] = lambda trial: False,
    ) -> int:
        """`work` on up to `most` tasks at a time; last: whether nothing is asked for behind a trial before it is told."""
        finished = 0
        while not stop():
            trials: list[Trial] = []
            while len(trials) < most and not (trials and last(trials[-1])):
                trial = self.claim()
                if trial is None:
                    break
                trials.append(trial)
            if not trials:
                if self.unfinished() == 0:
                    break
                time.sleep(poll)
                continue
            with ExitStack() as beating:
                for trial in trials:
                    beating.enter_context(_Heartbeat(trial, self.lease / 4))
                try:
                    results = evaluate(trials)
                except BaseException as error:
                    lost = isinstance(error, UpdateFinishedTrialError) and any(
                        self._state(trial.number).is_finished() for trial in trials
                    )
                    for trial in trials:
                        self._fail(trial.number)
                    if lost:  # a worker that was too slow to show a sign of life: others have taken its task
                        continue
                    raise
            for trial, (values, attributes) in zip(trials, results, strict=True):
                finished += self.finish(trial, values, attributes)
            if on_result is not None:
                on_result(finished)
        return finished

    # ------------------------------------------------------------------ inside

    def _needed(self, trial: Trial) -> bool:
        """Whether a trial just asked for stands for a task that no earlier trial holds or has completed."""
        task = trial.user_attrs.get("task", trial.number)
        trials = self.by_task().get(task)
        if trials is None:
            return False
        earlier = [other for other in trials if other.number < trial.number]
        return all(other.state not in (*_OPEN, TrialState.COMPLETE) for other in earlier)

    def _take_back(self) -> None:
        """Fail the trials whose workers give no sign of life, and queue every task that nobody holds."""
        now = time.monotonic()
        for task, trials in self.by_task().items():
            held = False
            for trial in trials:
                state = trial.state
                if state == TrialState.RUNNING and self._silent(trial, now):
                    state = self._fail(trial.number)
                held |= state in (*_OPEN, TrialState.COMPLETE)
            if not held and not self._given_up(trials):
                self.study.enqueue_trial(dict(trials[0].params), {"task": task})

    def _silent(self, trial: FrozenTrial, now: float) -> bool:
        beat = int(trial.user_attrs.get("beat", -1))
        known = self._signs.get(trial.number)
        if known is None or known[0] != beat:
            self._signs[trial.number] = (beat, now)
            return False
        return now - known[1] > self.lease

    def _state(self, number: int) -> TrialState:
        return self.study.get_trials(deepcopy=False)[number].state

    def _fail(self, number: int) -> TrialState:
        """Fail a trial unless somebody has finished it; returns its state then."""
        try:
            self.study.tell(number, state=TrialState.FAIL)
        except (UpdateFinishedTrialError, ValueError):
            if not self._state(number).is_finished():
                raise
        return self._state(number)


class _Heartbeat:
    """Raises a trial's number as long as the block runs; stops by itself once the trial is taken away."""

    def __init__(self, trial: Trial, interval: float) -> None:
        self._trial, self._interval = trial, interval
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        beat = 0
        while not self._over.wait(self._interval):
            beat += 1
            try:
                self._trial.set_user_attr("beat", beat)
            except UpdateFinishedTrialError:
                return
            except STORAGE_FAILURES:
                continue  # the worker itself will tell of what lasts
