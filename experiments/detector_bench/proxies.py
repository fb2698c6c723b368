"""Zero-cost scores of the bench's networks that need the built network: computed once each, stored beside the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.detector_bench.networks import Network
from nas.scorers.measuring import Protocol, measure_all, passes_for, spec_subject
from nas.scorers.score_log import ScoreLog, read_scores

PATH = Path(__file__).with_name("proxies.jsonl")
#: Rivals of the learned score, from their papers.
PROXIES = ("swap", "zico_bc")


def measure_proxies(
    networks: Sequence[Network], path: Path, most: int = 0, batch: int = 16, image_size: int = 320
) -> int:
    """Score what the file lacks, at most `most` networks (0: all); returns how many are left.

    Each network is built from seed 0 and sees `batch` Gaussian images of `image_size` pixels.
    """
    passes, protocol = passes_for(PROXIES), Protocol(batch, "gaussian", image_size)
    log = ScoreLog(path, protocol.as_dict())
    subjects = [spec_subject(network.name, network.spec, image_size) for network in networks]
    todo = [subject for subject in subjects if log.missing(subject.key, 0, PROXIES)]
    measure_all(todo[: most or None], passes, protocol, log, lambda position: 1)
    return max(0, len(todo) - most) if most else 0


def read_proxies(path: Path = PATH) -> dict[str, dict[str, float]]:
    """Scores by the network's digest; none if the file does not exist, UserError if it is damaged."""
    if not path.is_file():
        return {}
    return {key.rpartition("@")[2]: scores for key, _, scores, _ in read_scores(path)}
