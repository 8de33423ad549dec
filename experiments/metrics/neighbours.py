"""Exact nearest neighbours and membership in balls, computed in blocks without the full matrix of distances.

Distances by inner products, |u|^2 + |v|^2 - 2 u v, are fast but have rounding errors: a point may fall outside of a
ball whose radius is its distance. Inner products decide all pairs whose distance differs from the threshold by more
than a bound of the rounding error. The few remaining pairs are decided by squared differences, which give the same
number for the same pair in every function.
"""

from collections.abc import Iterator

import numpy as np

BLOCK = 2**22  # distances in memory at a time: 32 MB
MAX_ROWS = 1000
SPARE = 4  # candidates in addition to the requested number of nearest neighbours


class Points:
    """Points (N, d) in float64 relative to an origin, with their squared lengths.

    Args:
        points: (N, d).
        origin: (d,), subtracted from the points. It should be near the points, to reduce rounding errors, and must be
            equal for all sets that are compared.
    """

    def __init__(self, points: np.ndarray, origin: np.ndarray):
        self.points = np.asarray(points, np.float64) - origin
        self.lengths = np.einsum("nd,nd->n", self.points, self.points)

    def __len__(self) -> int:
        return len(self.points)


def together(*sets: np.ndarray) -> list[Points]:
    """Returns sets (N, d) as `Points` with a common origin, the mean of the last set."""
    origin = np.asarray(sets[-1], np.float64).mean(axis=0)
    return [Points(points, origin) for points in sets]


def _blocks(rows: Points, columns: Points) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields blocks of rows and their squared distances (B, M) to all columns, with errors of at most `_slack`."""
    size = min(MAX_ROWS, max(1, BLOCK // len(columns)))
    for start in range(0, len(rows), size):
        block = slice(start, start + size)
        distances = (-2 * rows.points[block]) @ columns.points.T
        distances += rows.lengths[block, None]
        distances += columns.lengths
        yield block, distances


def _slack(rows: Points, columns: Points) -> tuple[np.ndarray, np.ndarray]:
    """Returns (N,) and (M,) whose sum bounds the rounding error in `_blocks`: (d + 4) eps (|u|^2 + |v|^2)."""
    factor = (rows.points.shape[1] + 4) * np.finfo(np.float64).eps
    return factor * rows.lengths, factor * columns.lengths


def _exact(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Returns the squared distances of points (..., d), with broadcasting."""
    return np.square(u - v).sum(axis=-1)


def nearest(rows: Points, columns: Points, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the `count` nearest columns of each row: squared distances (N, count), ascending, and indices (N, count).

    If rows and columns are the same points, each point is its own first neighbour, at distance 0.
    """
    taken = min(count + SPARE, len(columns))
    row_slack, column_slack = _slack(rows, columns)
    all_distances, all_indices = np.empty((len(rows), count)), np.empty((len(rows), count), np.int64)
    for block, distances in _blocks(rows, columns):
        candidates = np.argpartition(distances, taken - 1, axis=1)[:, :taken]
        farthest = np.take_along_axis(distances, candidates, axis=1).max(axis=1)
        exact = _exact(rows.points[block, None], columns.points[candidates])
        order = np.argsort(exact, axis=1, kind="stable")[:, :count]
        all_distances[block] = np.take_along_axis(exact, order, axis=1)
        all_indices[block] = np.take_along_axis(candidates, order, axis=1)
        # Columns that are not candidates are at least as far as `farthest`, up to rounding.
        certain = all_distances[block, -1] <= farthest - row_slack[block] - column_slack.max()
        for i in () if taken == len(columns) else block.start + np.flatnonzero(~certain):
            exact = _exact(rows.points[i], columns.points)
            order = np.argsort(exact, kind="stable")[:count]
            all_distances[i], all_indices[i] = exact[order], order
    return all_distances, all_indices


def within(
    rows: Points, columns: Points, row_radii: list[np.ndarray], column_radii: list[np.ndarray]
) -> Iterator[tuple[slice, list[np.ndarray], list[np.ndarray]]]:
    """Determines for closed balls around rows and columns whether they contain the other point, in blocks of rows.

    Args:
        rows, columns: N and M points.
        row_radii: lists of squared radii (N,) of balls around the rows.
        column_radii: lists of squared radii (M,) of balls around the columns.

    Yields:
        (block, inside_rows, inside_columns): the slice of rows, and for each entry of `row_radii` and of `column_radii`
        a boolean matrix (B, M), True where the distance of row and column is at most the radius.
    """
    row_slack, column_slack = _slack(rows, columns)
    for block, distances in _blocks(rows, columns):

        def closed(radii, block=block, distances=distances):
            excess = distances - radii
            inside = excess <= 0
            np.abs(excess, out=excess)
            excess -= row_slack[block, None]
            near = excess <= column_slack
            i, j = np.nonzero(near)
            for start in range(0, len(i), MAX_ROWS):
                some = slice(start, start + MAX_ROWS)
                exact = _exact(rows.points[block][i[some]], columns.points[j[some]])
                inside[i[some], j[some]] = exact <= np.broadcast_to(radii, inside.shape)[i[some], j[some]]
            return inside

        yield block, [closed(r[block, None]) for r in row_radii], [closed(r) for r in column_radii]
