"""Costly objectives with Optuna: NSGA-II or TPE on one storage that any number of machines may share.

Storages: `journal:PATH` (a file on a shared disk), `sqlite:///PATH`, `postgresql://...`, `mysql://...`. The same command
on another machine joins the same study; `optuna-dashboard` shows it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import optuna
from annotated_types import Ge, Le
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.errors import UserError
from nas.options import Name
from nas.searchers.base import Evaluation, Problem, Proposals, excess
from nas.searchers.history import Archive, History
from nas.searchers.loop import Progress, SearchOutcome
from nas.searchers.shared import Result, SharedStudy, storage_told
from nas.spec import Spec
from search_spaces.genes import FIELDS, GeneCodec, Genes
from search_spaces.tinynas import TinyNASSpace

Sampler = Literal["nsga2", "tpe", "random"]
#: Since Optuna 5 a trial is told its constraints; before, samplers take a function.
_SETS_CONSTRAINTS = hasattr(Trial, "set_constraint")
#: The score of what is outside the budget and was not scored.
_UNSCORED = -1e6


def open_storage(url: str) -> BaseStorage:
    """The storage of a URL; raises UserError in one line if it cannot be opened."""
    try:
        if url.startswith("journal:"):
            path = Path(url.removeprefix("journal:"))
            path.parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(str(path)))
        if "://" not in url:
            raise UserError(f"storage {url!r}: expected journal:PATH, sqlite:///PATH, postgresql://... or mysql://...")
        engine: dict[str, Any] = {"pool_pre_ping": True}
        if url.startswith("sqlite"):
            engine["connect_args"] = {"timeout": 120}
        with storage_told(f"cannot open storage {url}"):
            return RDBStorage(url, engine_kwargs=engine)
    except (OSError, ValueError, ImportError) as error:  # ValueError: a journal that is none
        raise UserError(f"cannot open storage {url}: {str(error).splitlines()[0]}") from None


def make_sampler(name: Sampler, seed: int, population: int) -> BaseSampler:
    """A sampler that prefers what is inside the budget (`constrain` tells it what is)."""
    if name == "random":
        return RandomSampler(seed=seed)
    options: dict[str, Any] = {"seed": seed} | ({"population_size": population} if name == "nsga2" else {})
    if not _SETS_CONSTRAINTS:
        options["constraints_func"] = lambda trial: [float(trial.user_attrs.get("excess", 1.0))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return NSGAIISampler(**options) if name == "nsga2" else TPESampler(**options)


class NumberedSampler(BaseSampler):
    """A sampler whose random numbers are a function of (seed, trial number).

    Every worker, and a study that is continued, makes samplers from the same seed: they would all begin with the same
    draws. `make` builds the sampler that draws for one trial, from a seed of its own. start: parameters of the first
    trials, which nothing draws.
    """

    def __init__(
        self, make: Callable[[int], BaseSampler], seed: int, start: Sequence[Mapping[str, float]] = ()
    ) -> None:
        self._make, self._seed, self._number, self._start = make, seed, -1, start
        self._sampler = make(seed)

    def _for(self, trial: FrozenTrial) -> BaseSampler:
        if trial.number != self._number:
            mixed = int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0])
            self._number, self._sampler = trial.number, self._make(mixed)
        return self._sampler

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {} if trial.number < len(self._start) else self._for(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, object]:
        return {} if trial.number < len(self._start) else self._for(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> object:
        if trial.number < len(self._start):
            return self._start[trial.number][param_name]
        return self._for(trial).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._for(trial).before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._for(trial).after_trial(study, trial, state, values)


def constrain(trial: Trial, outside: float) -> None:
    """Tell the sampler how far a trial is outside the budget; 0 is inside."""
    if _SETS_CONSTRAINTS:
        trial.set_constraint("excess", outside)


def suggest(trial: Trial, codec: GeneCodec) -> Genes:
    """One gene row (1, genes) from a trial's parameters, repaired into the space.

    Bottlenecks are places between the lowest and highest allowed one, so that every parameter has a fixed range.
    """
    space = codec.space
    stems = space.stem_widths()
    row = [trial.suggest_int("stem", stems[0], stems[-1], step=space.step)]
    for index in range(codec.blocks):
        widths, kernels = space.widths(index), space.block_kernels(index)
        out = trial.suggest_int(f"out_{index}", widths[0], widths[-1], step=space.step)
        place = trial.suggest_float(f"bottleneck_{index}", 0.0, 1.0)
        mids = space.bottlenecks(out)
        kernel = trial.suggest_categorical(f"kernel_{index}", kernels) if len(kernels) > 1 else kernels[0]
        depth = trial.suggest_int(f"depth_{index}", 1, space.depths[index])
        row += [out, mids[min(int(place * len(mids)), len(mids) - 1)], kernel, depth]
    assert len(row) == 1 + FIELDS * codec.blocks
    return codec.repaired(np.array([row], dtype=np.int64))


def parameters_of(row: Genes, codec: GeneCodec) -> dict[str, float]:
    """What `suggest` makes the genes (genes,) of a member from."""
    found: dict[str, float] = {"stem": int(row[0])}
    for index in range(codec.blocks):
        out, mid, kernel, depth = (int(value) for value in row[1 + FIELDS * index : 1 + FIELDS * (index + 1)])
        mids = list(codec.space.bottlenecks(out))
        found |= {f"out_{index}": out, f"bottleneck_{index}": (mids.index(mid) + 0.5) / len(mids)}
        found |= {f"kernel_{index}": kernel, f"depth_{index}": depth}
    return found


@storage_told()
def search_with_optuna(
    problem: Problem,
    evaluations: int,
    seed: int = 0,
    *,
    storage: str = "",
    study: Name = "search",
    sampler: Sampler = "nsga2",
    population: Annotated[int, Ge(2), Le(1_000_000)] = 50,
    lease: Annotated[float, Ge(1), Le(1e6)] = 60.0,
    identity: str = "",
    on_progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
    start: Sequence[Spec] = (),
    workers: int = 1,
) -> SearchOutcome:
    """Evaluate `evaluations` networks together with every other worker on the storage; all return the same outcome.

    storage: see the module; empty keeps everything in memory. nsga2 seeks the front of score against every budgeted
    metric, tpe and random the best score. workers: as many networks are asked for at a time, of nsga2 those of one
    generation, so that their number changes nothing; tpe learns from every one before it asks for the next. lease: seconds
    after which a silent worker's network is given to another.
    Raises UserError for a space that is not a TinyNAS space, and for a study that belongs to another search.
    """
    space = getattr(problem, "space", None)
    if not isinstance(space, TinyNASSpace):
        raise UserError("searcher optuna needs a TinyNAS space; use evolution")
    codec, began = space.genes, time.monotonic()
    costs = len(problem.budget.metrics) if sampler == "nsga2" else 0
    directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * costs]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    first = [parameters_of(row, codec) for row in codec.encode(start)]
    numbered = NumberedSampler(lambda own: make_sampler(sampler, own, population), seed, first)
    shared = SharedStudy(_study(storage, study, numbered, directions, identity), evaluations, lease)
    archive, columns = Archive(problem), [problem.metrics.index(metric) for metric in problem.budget.metrics]
    best: dict[str, float] = {}

    def evaluate(trials: Sequence[Trial]) -> list[Result]:
        genes = np.concatenate([suggest(trial, codec) for trial in trials])
        evaluation = problem.evaluate(problem.encode([codec.spec(row) for row in genes]))
        results: list[Result] = []
        rows = zip(trials, genes, evaluation.score, evaluation.metrics, excess(problem, evaluation), strict=True)
        for trial, row, scored, metrics, outside in rows:
            constrain(trial, float(outside))
            score = float(np.nan_to_num(scored, nan=_UNSCORED, neginf=_UNSCORED))
            if outside == 0 and score > best.get("score", -np.inf):
                best.update({"score": score} | dict(zip(problem.metrics, metrics.tolist(), strict=True)))
            values = [score, *metrics[columns].tolist()][: len(directions)]
            results.append((values, {"genes": row.tolist(), "metrics": metrics.tolist(), "excess": float(outside)}))
        return results

    def last_of_its_generation(trial: Trial) -> bool:
        return sampler == "nsga2" and (trial.number + 1) % population == 0

    def report(finished: int) -> None:
        if on_progress is None:
            return
        seconds, done = time.monotonic() - began, evaluations - shared.unfinished()
        binding = problem.budget.binding(best) if best else []
        on_progress(Progress(done, done, evaluations, seconds, finished / seconds, dict(best) or None, binding, 0.0))

    together = 1 if sampler == "tpe" else workers
    shared.work_together(evaluate, stop, report, most=together, last=last_of_its_generation)
    trials = shared.results()
    genes = np.array([trial.user_attrs["genes"] for trial in trials], dtype=np.int64).reshape(len(trials), codec.width)
    metrics = np.array([trial.user_attrs["metrics"] for trial in trials]).reshape(len(trials), len(problem.metrics))
    scores = np.array([trial.values[0] for trial in trials])
    outside = np.array([trial.user_attrs["excess"] for trial in trials])
    history = History(("score", *problem.metrics, "excess"))
    history.extend(np.column_stack([scores, metrics, outside]))
    individuals = problem.encode([codec.spec(row) for row in genes])
    born = np.arange(len(trials))
    archive.add(Proposals(individuals, born, np.full(len(trials), -1)), Evaluation(scores, metrics), outside)
    seconds = time.monotonic() - began
    return SearchOutcome(
        archive.best(), archive.front(), history, len(trials), len(trials), seconds, len(trials) < evaluations, False
    )


def _study(url: str, name: str, sampler: BaseSampler, directions: list[StudyDirection], identity: str) -> optuna.Study:
    """The study of that name, created if nobody has; its directions and identity must fit."""
    with storage_told(f"cannot use storage {url}"):
        study = optuna.create_study(
            storage=open_storage(url) if url else None,
            study_name=name,
            sampler=sampler,
            directions=directions,
            load_if_exists=True,
        )
        if len(study.directions) != len(directions) or study.user_attrs.get("identity", identity) != identity:
            raise UserError(f"study {name!r} in {url} belongs to another search; choose another study name")
        study.set_user_attr("identity", identity)
        return study
