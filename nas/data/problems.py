"""What can be wrong with a data set, as values that a report counts and shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding: what it is, and where. A `warning` is told but never stops a training."""

    kind: str
    where: str
    warning: bool = False
