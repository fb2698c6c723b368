"""The general problem: any search space of backbones and any scorer, one candidate at a time, on several processes."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np

from nas.cost.budget import Budget
from nas.cost.count import peak_memory_mb
from nas.errors import UserError
from nas.scorers import score_spec
from nas.scorers.base import OWN, Scorer
from nas.scorers.score_log import ScoreLog, read_scores
from nas.searchers.base import Evaluation, Individuals, Interrupted
from nas.searchers.problem import Objective
from nas.spec import Backbone, Spec, digest, from_dict, to_dict
from search_spaces.base import SearchSpace
from search_spaces.streams import Words

MEMORY = "peak_memory_mb"


@dataclass(frozen=True)
class ScorerScore:
    """A scorer of specs with its options as (key, value) pairs.

    image_size: pixels at which it looks, unless its options say another side.
    """

    scorer: Scorer
    options: tuple[tuple[str, object], ...] = ()
    image_size: int | None = None

    @property
    def costly(self) -> bool:
        """Whether a score is worth remembering: one that takes a pass through the network, or code of one's own."""
        return self.scorer.cost != "microseconds" or self.scorer.source == OWN

    def __call__(self, spec: Spec) -> float:
        given: dict[str, Any] = {name: value for name, value in self.options if value is not None}
        return score_spec(spec, self.scorer, **{"image_size": self.image_size, **given})


def require_sendable(score: ScorerScore) -> None:
    """Raise UserError unless other processes can have the score."""
    try:
        pickle.dumps(score)
    except (pickle.PicklingError, AttributeError, TypeError):
        raise UserError(
            f"scorer {score.scorer.name} cannot be sent to other processes: define it at the top of a module, or take workers=1"
        ) from None


class SpecProblem:
    """Individuals are specs of backbones, or of whole detectors where the neck is searched too.

    Costs come from `objective`; `score` is asked only of those inside the budget, the others get the score nan.
    score: a picklable function of the whole detector (or of the bare backbone without a frame). workers: processes that
    share the scoring; results do not depend on their number. Costly scores are remembered by digest.
    peak_memory_mb, a maximum over parts and no sum, is
    computed only where the budget limits it.
    """

    generous: bool = False

    def __init__(
        self,
        space: SearchSpace[Spec],
        objective: Objective,
        budget: Budget,
        score: Callable[[Spec], float],
        workers: int = 1,
    ) -> None:
        self.metrics = objective.metrics + ((MEMORY,) if MEMORY in budget.metrics else ())
        for metric in budget.metrics:
            if metric not in self.metrics:
                raise UserError(f"this search gives no {metric}; it gives {', '.join(objective.metrics)}")
        self.space, self.objective, self.budget, self.score = space, objective, budget, score
        self.workers, self._kept = workers, None if not getattr(score, "costly", False) else dict[str, float]()
        self._pool: ProcessPoolExecutor | None = None
        self._log: ScoreLog | None = None
        if workers > 1:
            self._pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin)

    def remember(self, path: Path, identity: str) -> None:
        """Keep costly scores in a file, from which a search that goes on takes them; others are not worth it."""
        if self._kept is not None:
            remedy = "resume the search with the settings that it was started with"
            self._log = ScoreLog(path, {"search": identity}, exact=True, remedy=remedy)
            self._kept = {network: scores["score"] for network, _, scores, _ in read_scores(path)}

    # ------------------------------------------------------------------ moves

    def initial(self) -> Individuals:
        return self.encode([self.space.initial()])

    def sample(self, keys: Words) -> Individuals:
        return self.encode(self.space.samples(keys))

    def mutate(self, parents: Individuals, keys: Words, minor: bool) -> Individuals:
        return self.encode(self.space.mutants(parents.tolist(), keys, "minor" if minor else "coarse"))

    def crossover(self, first: Individuals, second: Individuals, keys: Words) -> Individuals:
        return self.encode(self.space.children(first.tolist(), second.tolist(), keys))

    def identities(self, individuals: Individuals) -> Words:
        return np.array([int(digest(spec), 16) for spec in individuals], dtype=np.uint64)

    def specs(self, individuals: Individuals) -> list[Spec]:
        return individuals.tolist()

    def encode(self, specs: Sequence[Spec]) -> Individuals:
        result = np.empty(len(specs), dtype=object)
        result[:] = specs
        return result

    def pack(self, individuals: Individuals) -> np.ndarray:
        return np.array([json.dumps(to_dict(spec), separators=(",", ":")) for spec in individuals], dtype=np.str_)

    def unpack(self, stored: np.ndarray) -> Individuals:
        return self.encode([from_dict(json.loads(text)) for text in stored.tolist()])

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    # ------------------------------------------------------------------ evaluation

    def evaluate(self, individuals: Individuals, stop: Callable[[], bool] = lambda: False) -> Evaluation:
        values = [self._costs(spec) for spec in individuals]
        names = self.metrics
        metrics = np.array([[row[name] for name in names] for row in values]).reshape(len(values), len(names))
        inside = [i for i, row in enumerate(values) if self.budget.admits(row)]
        score = np.full(len(values), math.nan)
        score[inside] = self._scores([self._whole(individuals[i]) for i in inside], stop)
        return Evaluation(score, metrics)

    def _whole(self, spec: Spec) -> Spec:
        """A backbone in its frame; a detector as it is."""
        frame = self.objective.frame
        return frame.detector(spec) if frame is not None and isinstance(spec, Backbone) else spec

    def _costs(self, spec: Spec) -> dict[str, float]:
        costs = self.objective.evaluate(spec)
        if MEMORY in self.metrics:
            frame = self.objective.frame
            whole = frame.detector(spec) if frame is not None else spec
            costs[MEMORY] = peak_memory_mb(whole, self.objective.image_size)
        return costs

    def _scores(self, specs: Sequence[Spec], stop: Callable[[], bool]) -> list[float]:
        if self._kept is None:
            return list(self._computed(specs, stop))
        names = [digest(spec) for spec in specs]
        new = {name: spec for name, spec in zip(names, specs, strict=True) if name not in self._kept}
        for name, score in zip(new, self._computed(list(new.values()), stop), strict=True):
            if self._log is not None:
                self._log.add(name, 0, {"score": score}, {})
            self._kept[name] = score
        return [self._kept[name] for name in names]

    def _computed(self, specs: Sequence[Spec], stop: Callable[[], bool]) -> Iterator[float]:
        """The scores in the order of the specs, each as soon as it and those before it are there."""
        if self._pool is None:
            for spec in specs:
                if stop():
                    raise Interrupted
                yield self.score(spec)
            return
        futures: list[Future[float]] = [self._pool.submit(self.score, spec) for spec in specs]
        for future in futures:
            while not wait([future], timeout=0.2).done:
                if stop():
                    for other in futures:
                        other.cancel()
                    raise Interrupted
            try:
                yield future.result()
            except BrokenProcessPool:
                raise UserError("a worker process was killed (no memory left?): go on with fewer workers") from None


def _begin() -> None:
    """Ctrl-C is for the main process, workers finish what they do; where that process is killed, they end too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
