"""Runs zero-cost scorers over any number of networks, one in memory at a time, into a file that can be resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass

import torch
from torch import nn

from nas.errors import UserError
from nas.scorers.base import Scorer, number
from nas.scorers.probe import scorer_images
from nas.scorers.score_log import ScoreLog
from nas.scorers.subjects import Subject, spec_subject
from nas.scorers.zero_cost import Pass
from nas.spec import Spec, image_side


@dataclass(frozen=True, slots=True)
class Protocol:
    """What a score depends on besides the network and the seed.

    inputs: "gaussian" or a folder of pictures; image_size: 0 takes the network's own.
    Weights are PyTorch's default initialisation from the seed (zen and AZ-NAS draw their own).
    """

    batch: int = 16
    inputs: str = "gaussian"
    image_size: int = 0

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(
    subject: Subject, step: Pass, protocol: Protocol, seed: int, options: Mapping[str, object] | None = None
) -> dict[str, float]:
    """The scores of one pass on a network built afresh from the seed; options: those of the scorer.

    Raises UserError that names network and scorer where the network cannot be scored.
    """
    side = image_side(subject, protocol.image_size or None)
    torch.manual_seed(seed)
    model = subject.build()
    # Scorers that take only the shape of the images get no pictures drawn for them.
    images = (
        scorer_images(protocol.inputs, protocol.batch, side, seed)
        if step.reads_images
        else torch.zeros(protocol.batch, 3, side, side)
    )
    try:
        known = {name: value for name, value in (("images", images), ("seed", seed)) if name in step.scorer.takes}
        answer = step.scorer(model, **known, **(options or {}))
    except (UserError, RuntimeError, ValueError) as error:
        raise UserError(f"scorer {step.name} failed on {subject.name}: {str(error).splitlines()[0]}") from error
    return answer if isinstance(answer, dict) else {step.name: number(step.name, answer)}


def score_built(scorer: Scorer, spec: Spec, side: int, options: Mapping[str, object]) -> float:
    """The score of a spec's network by a scorer of modules: built from seed 0, on 16 Gaussian images of `side` pixels."""
    step = Pass(scorer.name, scorer, (scorer.name,))
    return measure(spec_subject("the network", spec, side), step, Protocol(), 0, options)[scorer.name]


def score_module(scorer: Scorer, module: nn.Module, side: int, options: Mapping[str, object]) -> float:
    """The score of a torch module, which stays as it is, by a scorer of modules, on 16 Gaussian images."""
    subject = Subject("the module", {}, lambda: deepcopy(module), side)
    return measure(subject, Pass(scorer.name, scorer, (scorer.name,)), Protocol(), 0, options)[scorer.name]


def measure_all(
    subjects: Iterable[Subject],
    passes: tuple[Pass, ...],
    protocol: Protocol,
    log: ScoreLog,
    seeds: Callable[[int], int],
    progress: Callable[[], None] = lambda: None,
) -> int:
    """Fill the log with the passes of every network for seeds 0 .. seeds(position) - 1; returns the new lines.

    What the log holds already is skipped. An interruption loses at most the network in work.
    """
    written = 0
    for position, subject in enumerate(subjects):
        for seed in range(seeds(position)):
            scores: dict[str, float] = {}
            seconds: dict[str, float] = {}
            for step in passes:
                if log.missing(subject.key, seed, step.answers):
                    start = time.perf_counter()
                    scores |= measure(subject, step, protocol, seed)
                    seconds[step.name] = time.perf_counter() - start
            if scores:
                log.add(subject.key, seed, scores, seconds)
                written += 1
        progress()
    return written
