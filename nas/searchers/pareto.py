"""Fronts of points where every column is to be minimised: membership, ranks, crowding, hypervolume.

A score that is to be maximised enters with its sign changed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def nondominated(points: Points) -> npt.NDArray[np.bool_]:
    """Which rows of (n, d) points no other row dominates; of equal rows only the first counts.

    Two columns cost a sort; more are compared with the front so far, a few hundred sorted rows at a time.
    """
    points = np.asarray(points, dtype=np.float64)
    count, columns = points.shape
    keep = np.zeros(count, dtype=bool)
    if count == 0:
        return keep
    order = np.lexsort((np.arange(count), *points.T[::-1]))
    ranked = points[order]
    if columns == 1:
        keep[order[0]] = True
    elif columns == 2:
        lowest = np.minimum.accumulate(ranked[:, 1])
        keep[order] = np.concatenate(([True], ranked[1:, 1] < lowest[:-1]))
    else:
        keep[order] = _nondominated_sorted(ranked)
    return keep


def best_first(score: Points, costs: Points) -> Rows:
    """Rows that no other beats in score (n,) and every cost (n, d): the best score first, of equal ones the cheapest."""
    points = np.column_stack([-score, costs])
    keep = np.flatnonzero(nondominated(points))
    return keep[np.lexsort(points[keep].T[::-1])]


def _nondominated_sorted(ranked: Points, chunk: int = 256) -> npt.NDArray[np.bool_]:
    """`nondominated` for lexicographically sorted rows: only an earlier row can dominate or equal a later one."""
    keep = np.zeros(len(ranked), dtype=bool)
    front = ranked[:0]
    for start in range(0, len(ranked), chunk):
        rows = np.arange(start, min(start + chunk, len(ranked)))
        for part in (front[:64], front[64:]):
            if len(part) and len(rows):
                covered = np.any(np.all(part[None, :, :] <= ranked[rows][:, None, :], axis=2), axis=1)
                rows = rows[~covered]
        points = ranked[rows]
        earlier = np.tri(len(rows), k=-1, dtype=bool)
        covered = ((points[None, :, :] <= points[:, None, :]).all(axis=2) & earlier).any(axis=1)
        keep[rows[~covered]] = True
        front = np.concatenate([front, points[~covered]])
    return keep


def hypervolume(points: Points, reference: npt.ArrayLike) -> float:
    """Volume dominated by (n, d) points up to the reference corner; points beyond the corner count for nothing.

    Exact, by slicing along the last column (While et al., IEEE TEC 2006): meant for fronts of up to a few thousand
    points in two objectives and a few hundred in three or four.
    """
    corner = np.asarray(reference, dtype=np.float64)
    points = np.asarray(points, dtype=np.float64).reshape(-1, len(corner))
    points = points[(points < corner).all(axis=1)]
    if len(points) == 0:
        return 0.0
    points = points[nondominated(points)]
    if len(corner) == 1:
        return float(corner[0] - points[:, 0].min())
    if len(corner) == 2:
        points = points[np.argsort(points[:, 0])]
        widths = np.diff(np.append(points[:, 0], corner[0]))
        return float((widths * (corner[1] - points[:, 1])).sum())
    points = points[np.argsort(points[:, -1], kind="stable")]
    depths = np.diff(np.append(points[:, -1], corner[-1]))
    return sum(
        float(depth) * hypervolume(points[: i + 1, :-1], corner[:-1]) for i, depth in enumerate(depths) if depth > 0
    )


def survivors(points: Points, outside: npt.NDArray[np.float64], count: int) -> Rows:
    """Rows of the best `count` points (all columns to be minimised), best first: by rank, then by crowding distance."""
    rows = np.arange(len(points))
    chosen: list[Rows] = []
    taken = 0
    inside = rows[outside == 0]
    for front in ranks(points[inside], count):
        members = inside[front]
        members = members[np.argsort(-crowding(points[members]), kind="stable")]
        chosen.append(members[: count - taken])
        taken += len(chosen[-1])
        if taken == count:
            break
    if taken < count:
        beyond = rows[outside > 0]
        chosen.append(beyond[np.argsort(outside[beyond], kind="stable")][: count - taken])
    return np.concatenate(chosen)


def ranks(points: Points, enough: int) -> list[Rows]:
    """Rows of the successive fronts of points, until at least `enough` rows are in one."""
    if len(points) == 0:
        return []
    no_worse = np.ones((len(points), len(points)), dtype=bool)
    better = np.zeros_like(no_worse)
    for column in points.T:
        no_worse &= column[:, None] <= column[None, :]
        better |= column[:, None] < column[None, :]
    dominates = no_worse & better
    beaten = dominates.sum(axis=0)
    fronts, taken = [], 0
    while taken < min(enough, len(points)):
        front = np.flatnonzero(beaten == 0)
        fronts.append(front)
        taken += len(front)
        beaten = beaten - dominates[front].sum(axis=0)
        beaten[front] = -1
    return fronts


def crowding(points: Points) -> npt.NDArray[np.float64]:
    """Crowding distance of the points of one front: the extremes of every column are infinitely apart."""
    distance = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        ranked = column[order]
        span = ranked[-1] - ranked[0]
        distance[order[[0, -1]]] = np.inf
        if span > 0 and len(points) > 2:
            distance[order[1:-1]] += (ranked[2:] - ranked[:-2]) / span
    return distance
