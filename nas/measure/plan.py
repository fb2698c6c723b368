"""Which networks to time so that the kernels of a search space are known: the space itself says."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from nas.blocks.operation import Operation
from nas.cost.measured_table import Kernels
from nas.errors import UserError
from nas.frame import Frame
from nas.lowering import operations
from nas.spec import DetectorSpec, digest
from search_spaces.base import SearchSpace

#: Random networks among which the informative ones are chosen.
POOL = 160


def random_detectors(space: SearchSpace[Any], frame: Frame, count: int, seed: int) -> list[DetectorSpec]:
    """Distinct random detectors of a space; raises UserError if it holds too few."""
    rng = Random(seed)
    found: dict[str, DetectorSpec] = {}
    for _ in range(20 * count):
        spec = frame.detector(space.sample(rng))
        found.setdefault(digest(spec), spec)
        if len(found) == count:
            return list(found.values())
    raise UserError(f"the space gives only {len(found)} different networks, {count} are needed")


def kernels_of(spec: DetectorSpec, kernels: Kernels) -> set[Operation]:
    """The distinct kernels that a runtime runs for a detector."""
    return {part for operation in operations(spec, "folded") for part in kernels.of(operation)}


def informative_order(pool: list[DetectorSpec], kernels: Kernels) -> list[DetectorSpec]:
    """The pool, each next network the one whose unseen kernels are most common in the space.

    Stopping anywhere leaves the best table for the time spent.
    """
    contents = [kernels_of(spec, kernels) for spec in pool]
    frequency = Counter(kernel for content in contents for kernel in content)
    left, seen = set(range(len(pool))), set[Operation]()
    order: list[DetectorSpec] = []
    while left:
        best = max(left, key=lambda index: (sum(frequency[k] for k in contents[index] - seen), -index))
        left.remove(best)
        seen |= contents[best]
        order.append(pool[best])
    return order
