"""Fronts of points where every column is to be minimised: membership, hypervolume, knee.

A score that is to be maximised enters with its sign changed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nas.errors import UserError

Points = npt.NDArray[np.float64]


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


def knee(points: Points) -> int:
    """Row of the front's knee: farthest below the plane through the extremes, columns scaled to 0..1.

    For two columns this is the usual distance to the chord; for more, the smallest sum of scaled columns.
    Raises UserError for no points.
    """
    points = np.asarray(points, dtype=np.float64)
    if len(points) == 0:
        raise UserError("a front without points has no knee")
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.where(high > low, high - low, 1.0)
    return int(np.argmin(scaled.sum(axis=1)))
