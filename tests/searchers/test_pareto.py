from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.searchers.pareto import hypervolume, nondominated


def slow_front(points: np.ndarray) -> list[bool]:
    keep = []
    for i, row in enumerate(points):
        beaten = any(
            (other <= row).all() and ((other < row).any() or j < i) for j, other in enumerate(points) if j != i
        )
        keep.append(not beaten)
    return keep


@settings(max_examples=60)
@given(st.integers(1, 4), st.lists(st.integers(0, 6), min_size=4, max_size=120))
def test_front_equals_pairwise_comparison(columns: int, values: list[int]) -> None:
    points = np.array(values[: len(values) // columns * columns], dtype=float).reshape(-1, columns)
    assert nondominated(points).tolist() == slow_front(points)


def test_front_in_three_columns_over_many_chunks() -> None:
    points = np.random.default_rng(0).integers(0, 30, size=(1500, 3)).astype(float)
    assert nondominated(points).tolist() == slow_front(points)


def test_hypervolume_equals_counted_cells() -> None:
    rng = np.random.default_rng(1)
    for columns in (1, 2, 3, 4):
        points = rng.integers(0, 6, size=(12, columns)).astype(float)
        cells = np.stack(np.meshgrid(*[np.arange(7)] * columns, indexing="ij"), axis=-1).reshape(-1, columns)
        covered = (points[:, None, :] <= cells[None, :, :]).all(axis=2).any(axis=0).sum()
        assert hypervolume(points, [7.0] * columns) == covered


def test_points_beyond_the_corner_add_nothing() -> None:
    assert hypervolume(np.array([[2.0, 2.0], [9.0, 0.0]]), [4.0, 4.0]) == 4.0
    assert hypervolume(np.zeros((0, 2)), [1.0, 1.0]) == 0.0
