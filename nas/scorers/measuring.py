"""Runs zero-cost scorers over any number of networks, one in memory at a time, into a file that can be resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import torch

from nas.errors import UserError
from nas.scorers.inputs import scorer_images
from nas.scorers.score_log import ScoreLog
from nas.scorers.subjects import Subject
from nas.scorers.zero_cost import Pass
from nas.spec import image_side


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


def measure(subject: Subject, step: Pass, protocol: Protocol, seed: int) -> dict[str, float]:
    """The scores of one pass on a network built afresh from the seed.

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
        answer = step.scorer.function(model, images, seed)
    except (UserError, RuntimeError, ValueError) as error:
        raise UserError(f"scorer {step.name} failed on {subject.name}: {str(error).splitlines()[0]}") from error
    return answer if isinstance(answer, dict) else {step.name: float(answer)}


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
