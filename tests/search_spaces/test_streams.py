from __future__ import annotations

import numpy as np

from search_spaces.streams import Stream, candidate_keys, mix, row_hashes


def test_splitmix_matches_the_published_sequence() -> None:
    # First outputs of SplitMix64 seeded with 1234567 (reference implementation by S. Vigna).
    state = np.array([1234567], dtype=np.uint64)
    outputs = []
    for _ in range(3):
        outputs.append(int(mix(state)[0]))
        state = state + np.uint64(0x9E3779B97F4A7C15)
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_draws_of_a_candidate_do_not_depend_on_its_batch() -> None:
    whole = Stream(candidate_keys(7, 0, 100))
    part = Stream(candidate_keys(7, 40, 3))
    for limit in (5, 1000, 2):
        assert (whole.below(limit)[40:43] == part.below(limit)).all()
    taken = whole.take(np.arange(100) == 41)
    assert taken.uniform()[0] == part.uniform()[1]


def test_draws_are_uniform_and_seeds_differ() -> None:
    values = Stream(candidate_keys(0, 0, 20_000)).uniform()
    assert abs(values.mean() - 0.5) < 0.01 and abs(values.var() - 1 / 12) < 0.002
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.03
    other = Stream(candidate_keys(1, 0, 20_000)).uniform()
    assert abs(np.corrcoef(values, other)[0, 1]) < 0.03


def test_row_hashes_tell_rows_apart() -> None:
    rows = np.array([[a, b, c] for a in range(40) for b in range(40) for c in range(4)])
    hashes = row_hashes(rows)
    assert len(np.unique(hashes)) == len(rows)
    assert (row_hashes(rows[5:7]) == hashes[5:7]).all()
