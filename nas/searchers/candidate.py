"""One evaluated architecture: the value that searches return and reports read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nas.spec import Spec


@dataclass(frozen=True, slots=True)
class Candidate:
    """A spec with its digest and metrics (`score` among them).

    born: the proposal number at which it appeared; parent: that of the individual it was changed from, -1 for none.
    """

    spec: Spec
    digest: str
    metrics: Mapping[str, float] = field(hash=False)
    parent: int = -1
    born: int = 0

    @property
    def score(self) -> float:
        return self.metrics["score"]
