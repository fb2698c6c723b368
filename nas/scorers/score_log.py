"""Scores in a file, so that none is computed twice: JSON lines, one a network and seed, added whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from nas.errors import UserError
from nas.files import write_atomic

FORMAT = "maenas-scores/1"


class ScoreLog:
    """Scores of (network, seed), appended; on opening, a torn last line is cut and what is done is known.

    The first line holds the protocol (batch, inputs ...): a file made under another protocol is refused with UserError,
    which names the `remedy`. Scores are kept to eight digits, or whole where they are `exact`.
    """

    def __init__(
        self, path: Path, protocol: Mapping[str, object], exact: bool = False, remedy: str = "choose another file"
    ) -> None:
        self.path, self._exact = path, exact
        self._done: dict[tuple[str, int], set[str]] = {}
        if not path.exists() or not path.stat().st_size:
            write_atomic(path, json.dumps({"format": FORMAT, "protocol": dict(protocol)}) + "\n")
            return
        self._cut_torn_line()
        kept = read_protocol(path)
        for key in sorted(kept.keys() | protocol.keys()):
            if kept.get(key) != protocol.get(key):
                raise UserError(f"{path} was made with {key}={kept.get(key)}, now {key}={protocol.get(key)}: {remedy}")
        for network, seed, scores, _ in read_scores(path):
            self._done.setdefault((network, seed), set()).update(scores)

    def _cut_torn_line(self) -> None:
        with self.path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            step = min(size, 1 << 20)
            file.seek(size - step)
            keep = file.read(step).rfind(b"\n") + 1
            if keep != step:
                file.truncate(size - step + keep)

    def missing(self, network: str, seed: int, names: tuple[str, ...]) -> bool:
        """Whether any of the named scores is still to be computed."""
        return not set(names) <= self._done.get((network, seed), set())

    def add(self, network: str, seed: int, scores: Mapping[str, float], seconds: Mapping[str, float]) -> None:
        """Append one line in a single write."""
        row = {
            "network": network,
            "seed": seed,
            "scores": {name: self._encoded(value) for name, value in scores.items()},
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
        }
        with self.path.open("ab", buffering=0) as file:
            file.write((json.dumps(row) + "\n").encode())
        self._done.setdefault((network, seed), set()).update(scores)

    def _encoded(self, value: float) -> float | str:
        if not math.isfinite(value):
            return str(value)
        return value if self._exact else float(f"{value:.8g}")


def read_protocol(path: Path) -> dict[str, object]:
    """The protocol of a score file. Raises UserError if it is none."""
    with path.open(encoding="utf-8") as file:
        try:
            head = json.loads(file.readline())
        except json.JSONDecodeError:
            head = {}
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise UserError(f"{path} is not a file of scores ({FORMAT})")
    return head["protocol"]


def read_scores(path: Path) -> Iterator[tuple[str, int, dict[str, float], dict[str, float]]]:
    """(network, seed, scores, seconds a pass) line by line. Raises UserError that names a damaged line."""
    with path.open(encoding="utf-8") as file:
        file.readline()
        for number, line in enumerate(file, 2):
            try:
                row = json.loads(line)
                scores = {name: float(value) for name, value in row["scores"].items()}
                yield row["network"], int(row["seed"]), scores, row["seconds"]
            except (ValueError, KeyError, TypeError):
                raise UserError(f"{path}, line {number} is damaged: delete the line and run again") from None
