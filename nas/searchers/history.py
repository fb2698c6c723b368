"""What a search has evaluated: one compact column per number, and a sample of it as CSV."""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


class History:
    """Columns of 8-byte numbers, one row per distinct candidate in the order of evaluation."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._columns = {name: array("d") for name in self.names}

    def __len__(self) -> int:
        return len(self._columns[self.names[0]])

    def extend(self, rows: npt.NDArray[np.float64]) -> None:
        """Append (n, len(names)) rows."""
        for name, column in zip(self.names, rows.T, strict=True):
            self._columns[name].frombytes(np.ascontiguousarray(column, dtype=np.float64).tobytes())

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """A copy of one column."""
        return np.frombuffer(self._columns[name], dtype=np.float64).copy()

    def matrix(self) -> npt.NDArray[np.float64]:
        """(rows, len(names)) copy of everything."""
        return np.stack([self.column(name) for name in self.names], axis=1)

    def improvements(self, value: str, allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Rows at which the largest allowed `value` so far rose."""
        values = np.where(allowed, self.column(value), -np.inf)
        if len(values) == 0:
            return np.zeros(0, dtype=np.int64)
        best = np.maximum.accumulate(values)
        rose = np.concatenate(([np.isfinite(best[0])], best[1:] > best[:-1]))
        return np.flatnonzero(rose)

    def sample(self, rows: int, always: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
        """About `rows` evenly spaced row numbers, with those that must be there."""
        evenly = np.unique(np.linspace(0, len(self) - 1, min(rows, len(self))).round().astype(np.int64))
        return evenly if always is None else np.union1d(evenly, always)

    def to_csv(self, rows: npt.NDArray[np.int64]) -> str:
        """The chosen rows as CSV text with a header; the first column is the row number."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["evaluation", *self.names])
        columns = [self.column(name)[rows] for name in self.names]
        for i, row in enumerate(rows):
            writer.writerow([int(row) + 1, *(repr(float(column[i])) for column in columns)])
        return text.getvalue()
