"""Conformance tests for code of one's own, and of the package's own tests: what is promised of spaces and scorers.

    def test_my_space() -> None:
        check_space(Slim(name="slim"))

Every check raises AssertionError with one line that tells what was broken, and on which network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from nas.cost.count import count_spec
from nas.scorers import find_scorer, score_spec
from nas.spec import Spec, digest, from_dict, to_dict
from search_spaces import SearchSpace, find_space, load_published

#: Networks on which a scorer is tried, unless others are given.
NETWORKS = ("damo-yolo-t", "damo-yolo-s")


def check_space(space: str | SearchSpace[Any] | type[SearchSpace[Any]], draws: int = 20) -> None:
    """Whether a space keeps the promises of `SearchSpace`: members, moves inside it, and limits that can be stored.

    draws: random members that are tried. Raises AssertionError for the first promise that is broken.
    """
    it = find_space(space)
    first = it.initial()
    _member(it, first, "initial()")
    samples = [it.sample(Random(seed)) for seed in range(draws)]
    moved = False
    for seed, a in enumerate(samples):
        _member(it, a, f"sample(Random({seed}))")
        _require(it.sample(Random(seed)) == a, f"sample(Random({seed})) differs when it is repeated")
        b = samples[seed - 1]
        before = digest(a)
        children = {
            "coarse mutate": it.mutate(a, Random(seed)),
            "minor mutate": it.mutate(a, Random(seed), "minor"),
            "crossover": it.crossover(a, b, Random(seed)),
            "mutate of initial()": it.mutate(first, Random(seed)),
        }
        for what, child in children.items():
            _member(it, child, f"{what} with Random({seed})")
        _require(digest(a) == before, f"a move changed its parent, sample {seed}")
        _require(it.mutate(a, Random(seed)) == children["coarse mutate"], f"mutate with Random({seed}) does not repeat")
        moved |= children["mutate of initial()"] != first
    _require(moved, f"no mutation of initial() changes anything in {draws} tries")
    _require(it.size() >= len(set(samples)), f"size() is {it.size()}, but {len(set(samples))} members were drawn")
    smallest = it.smallest()
    if smallest is not None:
        _member(it, smallest, "smallest()")
        least = count_spec(smallest).params
        for seed, sample in enumerate(samples):
            _require(count_spec(sample).params >= least, f"sample(Random({seed})) has fewer parameters than smallest()")
    _require(it.override(**it.limits()) == it, "override(**limits()) is another space")
    _require(all(isinstance(line, str) for line in it.reached(first)), "reached() must list text")


def check_scorer(
    scorer: str | Callable[..., float],
    networks: Sequence[str | Spec] = NETWORKS,
    image_size: int | None = None,
    **options: object,
) -> None:
    """Whether a scorer of specs or of modules gives one finite number a network, the same each time.

    networks: published names or specs that it must tell apart. Raises AssertionError for the first promise that is broken.
    """
    chosen = find_scorer(scorer)
    specs = [load_published(network) if isinstance(network, str) else network for network in networks]
    scores = []
    for spec in specs:
        before = digest(spec)
        score = score_spec(spec, scorer, image_size, **options)
        _require(math.isfinite(score), f"scorer {chosen.name} gives {score} for {before}")
        stored = from_dict(to_dict(spec))
        again = score_spec(stored, scorer, image_size, **options)
        _require(score == again, f"scorer {chosen.name} gives {score} and then {again} for {before}")
        scores.append(score)
    _require(len(specs) < 2 or len(set(scores)) > 1, f"scorer {chosen.name} gives every network the score {scores[:1]}")


def _member(it: SearchSpace[Any], spec: Spec, what: str) -> None:
    broken = it.violations(spec)
    _require(not broken, f"{what} is no member of {it.name}: {broken[0] if broken else ''}")
    _require(from_dict(to_dict(spec)) == spec, f"{what} changes when it is stored and read back")
    hash(spec)
    counts = count_spec(spec)
    _require(counts.params > 0 and counts.macs > 0, f"{what} has {counts.params} parameters and {counts.macs} MACs")


def _require(kept: bool, broken: str) -> None:
    if not kept:
        raise AssertionError(broken)
