"""What a search remembers: every evaluation, the best and the front, and the file that it resumes from."""

from __future__ import annotations

import io
import zipfile
import zlib
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas.errors import UserError
from nas.files import csv_text, write_atomic
from nas.searchers.base import Candidate, Evaluation, Problem, Proposals
from nas.searchers.pareto import nondominated
from nas.spec import Spec, digest


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
        columns = [(rows + 1).tolist(), *(self.column(name)[rows].tolist() for name in self.names)]
        return csv_text([("evaluation", *self.names), *zip(*columns, strict=True)])


#: New candidates that wait before they are sorted into the front.
_PATIENCE = 8192


class Archive:
    """Candidates inside the budget that no other beats in score and in every budgeted metric.

    Equal ones give way to the earlier born, so the archive depends only on what was evaluated.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._columns = [problem.metrics.index(metric) for metric in problem.budget.metrics]
        self._individuals = problem.initial()[:0]
        self._values = np.zeros((0, 1 + len(problem.metrics)))
        self._lineage = np.zeros((0, 2), dtype=np.int64)
        self._waiting: list[tuple[np.ndarray, npt.NDArray[np.float64], npt.NDArray[np.int64]]] = []
        self._top: tuple[float, npt.NDArray[np.float64]] | None = None
        self.closest = np.inf

    def add(self, proposals: Proposals, evaluation: Evaluation, outside: npt.NDArray[np.float64]) -> None:
        """Take in what was evaluated; `outside` is its excess over the budget."""
        if len(outside):
            self.closest = min(self.closest, float(outside.min()))
        inside = np.flatnonzero((outside == 0) & np.isfinite(evaluation.score))
        if len(inside) == 0:
            return
        values = np.column_stack([evaluation.score, evaluation.metrics])[inside]
        lineage = np.stack([proposals.born, proposals.parents], axis=1)[inside]
        first = int(values[:, 0].argmax())
        if self._top is None or values[first, 0] > self._top[0]:
            self._top = (float(values[first, 0]), values[first])
        self._waiting.append((proposals.individuals[inside], values, lineage))
        if sum(len(item[2]) for item in self._waiting) >= _PATIENCE:
            self._settle()

    def best_metrics(self) -> dict[str, float] | None:
        """Score and metrics of the best candidate so far."""
        if self._top is None:
            return None
        return dict(zip(("score", *self._problem.metrics), self._top[1].tolist(), strict=True))

    def best(self) -> Candidate | None:
        """The candidate with the highest score; of equal ones the cheapest by the first limit, then the elder."""
        front = self.front()
        return front[0] if front else None

    def front(self) -> list[Candidate]:
        """The front, highest score first."""
        self._settle()
        order = np.lexsort((self._lineage[:, 0], *self._values[:, 1:].T[self._columns[::-1]], -self._values[:, 0]))
        specs = self._problem.specs(self._individuals[order])
        return [self._candidate(spec, row) for spec, row in zip(specs, order, strict=True)]

    def state(self) -> dict[str, np.ndarray]:
        self._settle()
        return {
            "archive.individuals": self._problem.pack(self._individuals),
            "archive.values": self._values,
            "archive.lineage": self._lineage,
            "archive.closest": np.array([self.closest]),
        }

    def restore(self, stored: Mapping[str, np.ndarray]) -> None:
        self._individuals = self._problem.unpack(stored["archive.individuals"])
        self._values, self._lineage = stored["archive.values"], stored["archive.lineage"]
        self.closest = float(stored["archive.closest"][0])
        if len(self._values):
            row = self._values[self._values[:, 0].argmax()]
            self._top = (float(row[0]), row)

    def _candidate(self, spec: Spec, row: int) -> Candidate:
        metrics = dict(zip(("score", *self._problem.metrics), self._values[row].tolist(), strict=True))
        born, parent = self._lineage[row].tolist()
        return Candidate(spec, digest(spec), metrics, parent, born)

    def _settle(self) -> None:
        """Merge what waits into the front."""
        if not self._waiting:
            return
        individuals, values, lineage = zip(*self._waiting, strict=True)
        self._waiting = []
        self._individuals = np.concatenate([self._individuals, *individuals])
        self._values = np.concatenate([self._values, *values])
        self._lineage = np.concatenate([self._lineage, *lineage])
        costs = self._values[:, 1:][:, self._columns]
        order = np.argsort(self._lineage[:, 0], kind="stable")
        keep = np.sort(order[nondominated(np.column_stack([-self._values[:, 0], costs])[order])])
        self._individuals, self._values, self._lineage = (
            self._individuals[keep],
            self._values[keep],
            self._lineage[keep],
        )


FORMAT = "maenas-search-state/1"


def save_arrays(path: Path, identity: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays under their names, with the format and the identity of the search that they belong to."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, format=np.array(FORMAT), identity=np.array(identity), **arrays)
    write_atomic(path, content.getvalue())


def load_arrays(path: Path, identity: str) -> dict[str, np.ndarray]:
    """The arrays of a file; raises UserError if it is damaged, of another format, or of another search."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in stored.zip.infolist()):
                raise ValueError("packed, as no search writes it")
            arrays = {key: stored[key] for key in stored.files}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, EOFError,
            NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        raise UserError(f"{path} is not a readable search state ({error}); delete it to start afresh") from None
    if str(arrays.pop("format", "")) != FORMAT:
        raise UserError(f"{path} is not in the format {FORMAT}; delete it to start afresh")
    if str(arrays.pop("identity", "")) != identity:
        raise UserError(f"{path} belongs to another search: resume it with the settings that it was started with")
    return arrays
