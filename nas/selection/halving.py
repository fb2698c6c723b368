"""Successive halving over finalists: rung after rung on one Optuna storage, shared by any number of workers.

Every training of a rung is a task of one study (nas.searchers.shared): who dies loses its lease, and nothing is done
twice. A rung ends when all its tasks have ended, so who goes on depends on what the trainings reached and on nothing
else: not on workers, order or clock. (Optuna's own pruners decide on whoever has arrived so far; such a run cannot be
repeated.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import Trial, TrialState

from nas.searchers.shared import Result, SharedStudy, storage_told
from nas.selection.portfolio import Finalist
from nas.selection.rungs import Plan

#: Failures of one training after which it is given up; interruptions count among them.
ATTEMPTS = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """What a finalist reached with a seed after so many epochs: validation AP then, and the best so far."""

    finalist: Finalist
    seed: int
    epochs: int
    ap: float
    best: float


#: A network and the seed with which it is trained.
Task = tuple[Finalist, int]
#: Trains a finalist with a seed up to an epoch: AP there, best AP so far.
Train = Callable[[Finalist, int, int], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class RungResult:
    """The standings of a rung in the order of its entrants, and who goes on, best first."""

    epochs: int
    standings: tuple[Standing, ...]
    kept: tuple[Finalist, ...]


def kept_of(standings: Sequence[Standing], count: int) -> tuple[Finalist, ...]:
    """The `count` best, the first of equal ones; and the best drawn one, if it is not among them."""
    ranked = sorted(standings, key=lambda standing: -standing.ap)  # stable: the order of the entrants breaks ties
    kept = [standing.finalist for standing in ranked[:count]]
    drawn = [standing.finalist for standing in ranked if standing.finalist.origin == "drawn"]
    return (*kept, *(drawn[:1] if not any(finalist.origin == "drawn" for finalist in kept) else ()))


def course(
    plan: Plan, finalists: Sequence[Finalist], seed: int, rung: Callable[[int, Sequence[Task]], Sequence[Standing]]
) -> Iterator[RungResult]:
    """The rungs of a plan, one after another, until `rung` brings fewer standings than it was given tasks.

    rung: the standings of the tasks of a rung, by its number. The last result holds all seeds of the last networks, and its
    `kept` ranks them by the mean of their best AP.
    """
    entrants = tuple(finalists)
    for number, step in enumerate(plan.rungs):
        last = number == len(plan.rungs) - 1
        seeds = range(seed, seed + (plan.seeds if last else 1))
        tasks = [(finalist, each) for finalist in entrants for each in seeds]
        standings = rung(number, tasks)
        if len(standings) < len(tasks):
            return
        entrants = ranked(standings) if last else kept_of(standings, plan.rungs[number + 1].entrants)
        yield RungResult(step.epochs, tuple(standings), entrants)


class Halving:
    """The course of a selection on a storage.

    identity: what every worker must share; lease: seconds without a sign of life after which a training is given to
    another worker.
    """

    def __init__(
        self, plan: Plan, storage: BaseStorage | None, identity: str, seed: int, lease: float, train: Train
    ) -> None:
        self.plan, self.storage, self.identity = plan, storage or InMemoryStorage(), identity
        self.seed, self.lease, self.train = seed, lease, train

    @storage_told()
    def run(
        self,
        finalists: Sequence[Finalist],
        on_standing: Callable[[Standing], None] = lambda standing: None,
        on_rung: Callable[[RungResult], None] = lambda result: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[RungResult]:
        """Train rung after rung; the results of all rungs (`course`), of those that ended if `stop` turned true."""
        results = []
        for result in course(
            self.plan, finalists, self.seed, lambda number, tasks: self._rung(number, tasks, on_standing, stop)
        ):
            results.append(result)
            on_rung(result)
        return results

    @storage_told()
    def release(self) -> None:
        """Take back every training that a process left behind; only for one that knows to be the storage's single user."""
        for summary in optuna.get_all_study_summaries(self.storage, include_best_trial=False):
            if summary.study_name.startswith(f"{self.identity}-rung-"):
                study = optuna.load_study(study_name=summary.study_name, storage=self.storage)
                for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                    study.tell(trial.number, state=TrialState.FAIL)

    def _rung(
        self,
        number: int,
        tasks: Sequence[Task],
        on_standing: Callable[[Standing], None],
        stop: Callable[[], bool],
    ) -> list[Standing]:
        """Work on a rung until all its tasks are finished, by whomever; empty if that was stopped before."""
        epochs = self.plan.rungs[number].epochs
        shared = SharedStudy(self._study(number), len(tasks), self.lease, ATTEMPTS)

        def evaluate(trial: Trial) -> Result:
            finalist, seed = tasks[shared.place(trial)]
            ap, best = self.train(finalist, seed, epochs)
            on_standing(Standing(finalist, seed, epochs, ap, best))
            facts: dict[str, Any] = {"name": finalist.name, "digest": finalist.digest, "seed": seed, "epochs": epochs}
            return [ap], facts | {"best": best}

        shared.work(evaluate, stop)
        done = shared.results()
        if len(done) < len(tasks):
            return []
        return [
            Standing(finalist, seed, epochs, trial.values[0], trial.user_attrs["best"])
            for (finalist, seed), trial in zip(tasks, done, strict=True)
        ]

    def _study(self, number: int) -> optuna.Study:
        """The study of a rung; UserError if it belongs to another selection."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        name = f"{self.identity}-rung-{number}"
        with storage_told("cannot use the selection's storage"):
            return optuna.create_study(
                storage=self.storage,
                study_name=name,
                direction="maximize",
                sampler=optuna.samplers.RandomSampler(seed=0),
                load_if_exists=True,
            )


def ranked(standings: Sequence[Standing]) -> tuple[Finalist, ...]:
    """The networks of the last rung by the mean of their seeds' best AP, best first."""
    means: dict[str, list[float]] = {}
    finalists = {standing.finalist.digest: standing.finalist for standing in standings}
    for standing in standings:
        means.setdefault(standing.finalist.digest, []).append(standing.best)
    order = sorted(means, key=lambda digest: -sum(means[digest]) / len(means[digest]))
    return tuple(finalists[digest] for digest in order)
