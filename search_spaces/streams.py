"""Random numbers that belong to a candidate: draw k of candidate i depends on (seed, i, k) and on nothing else.

So a search gives the same result with any number of workers, batch boundaries or interruptions. The generator is
SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) used as a counter-based hash, over whole arrays of candidates at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mix(words: Words) -> Words:
    """A bijective scramble of 64-bit words; neighbouring words become unrelated."""
    words = words + _GOLDEN
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))


def candidate_keys(seed: int, first: int, count: int) -> Words:
    """Keys of the candidates first .. first + count - 1 of a search with this seed (any non-negative integer)."""
    root = mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))
    return mix(mix(np.arange(first, first + count, dtype=np.uint64)) ^ root)


def row_hashes(rows: npt.NDArray[np.integer]) -> Words:
    """A 64-bit hash of every row of an integer matrix (the identity of a candidate given by its genes)."""
    words = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        words = mix(words ^ column.astype(np.uint64))
    return words


class Stream:
    """Successive draws for an array of candidates; every call is the next draw of each of them."""

    def __init__(self, keys: Words) -> None:
        self._keys = keys
        self._count = 0

    def uniform(self) -> Floats:
        """One number in [0, 1) per candidate."""
        self._count += 1
        words = mix(self._keys ^ mix(np.array([self._count], dtype=np.uint64)))
        return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def take(self, rows: npt.NDArray[np.bool_]) -> Stream:
        """The streams of some of the candidates, going on where they are."""
        part = Stream(self._keys[rows])
        part._count = self._count
        return part

    def below(self, limit: int | npt.NDArray[np.integer]) -> Integers:
        """One integer in 0 .. limit - 1 per candidate; `limit` may differ by candidate."""
        return (self.uniform() * limit).astype(np.int64)

    def chance(self, probability: float) -> npt.NDArray[np.bool_]:
        """True with the given probability, per candidate."""
        return self.uniform() < probability
