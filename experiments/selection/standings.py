"""Who of the contestants stands where after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.selection.contestants import Contestant

#: Seeds of every contestant, by which the order on val is told.
SEEDS = 3


@dataclass(frozen=True)
class Standing:
    """A trained contestant and its runs."""

    contestant: Contestant
    runs: list[dict[str, Any]]

    @property
    def test_aps(self) -> list[float]:
        """Test AP of every seed."""
        return [row["test_ap"] for row in self.runs]

    @property
    def val_ap(self) -> float:
        """Validation AP at the end, the mean over the seeds that everybody has."""
        return float(np.mean([row["curve"][-1][1] for row in self.runs if row["seed"] < SEEDS]))


def standings(contestants: Sequence[Contestant], rows: Sequence[dict[str, Any]]) -> dict[str, list[Standing]]:
    """Who is trained on each data set, the best on val first."""
    found: dict[str, list[Standing]] = {one.data: [] for one in contestants}
    for one in contestants:
        runs = [row for row in rows if (row["data"], row["digest"]) == (one.data, one.digest)]
        found[one.data] += [Standing(one, runs)] if runs else []
    return {data: sorted(trained, key=lambda standing: -standing.val_ap) for data, trained in found.items()}


def selected_and_drawn(trained: Sequence[Standing]) -> tuple[Standing, Standing] | None:
    """The network of nas.select and the best drawn one, where both are trained; `trained` is in the order of val."""
    first = {standing.contestant.family: standing for standing in reversed(trained)}
    return (first["selected"], first["drawn"]) if {"selected", "drawn"} <= first.keys() else None
