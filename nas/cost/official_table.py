"""The text tables of the official TinyNAS program, read and interpolated exactly as that program does.

A line is `{Regular,batch,in,height,width,out,kernel,stride,fused} milliseconds` (per batch). Only convolutions have a
price; pooling, normalisation, activation, squeeze-excite and space-to-depth are free. A shape that the table cannot
price (a missing kernel size, groups that are neither 1 nor depthwise) costs infinity.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

from nas.blocks.operation import Operation
from nas.cost.table_file import Header, Price
from nas.errors import UserError

FloatArray = npt.NDArray[np.float64]
_LINE = re.compile(r"\{(Regular|Depthwise)," + r",".join([r"(\d{1,9})"] * 8) + r"\} (-?\d+(?:\.\d+)?(?:e-?\d+)?)")
#: Rows of this height were dropped by the official program.
_DROPPED_HEIGHT = 4


class Query(NamedTuple):
    """What the table knows of one convolution; `fused`: the sum of a residual unit runs in its epilogue."""

    kind: str
    stride: int
    fused: int
    kernel: int
    in_channels: int
    height: int
    out_channels: int


class _Plane:
    """Milliseconds over (output channels, height): Delaunay-linear, nearest neighbour where that has no answer."""

    def __init__(self, points: Sequence[tuple[int, int]], values: Sequence[float]) -> None:
        self.points = np.array(points, dtype=float)
        self.values = np.array(values, dtype=float)
        self._nearest = NearestNDInterpolator(self.points, self.values, rescale=True)
        flat = len(self.points) < 4 or any(len(set(self.points[:, axis])) < 2 for axis in (0, 1))
        self._linear = None if flat else LinearNDInterpolator(self.points, self.values)

    def __call__(self, out_channels: FloatArray, height: FloatArray) -> FloatArray:
        query = np.stack([out_channels, height], axis=1)
        if self._linear is None:
            return np.asarray(self._nearest(query))
        result = np.asarray(self._linear(query))
        missing = ~(result >= 0)
        if missing.any():
            result[missing] = self._nearest(query[missing])
        return result


class OfficialTable:
    """One batch size of an official table as a pricer of operations.

    price_many prices the distinct shapes together: about 100,000 in seconds.
    """

    def __init__(self, header: Header, planes: dict[tuple[str, int, int, int], dict[float, _Plane]]) -> None:
        self.header = header
        self._planes = planes
        self._known: dict[Query, float] = {}

    @classmethod
    def read(cls, path: Path, batch: int | None = None) -> OfficialTable:
        """From a file; `batch` is needed where it holds several. Raises UserError that names the line at fault."""
        rows = list(_rows(path))
        batches = sorted({row[1] for row in rows})
        if not batches:
            raise UserError(f"{path}: no rows")
        if batch is None and len(batches) == 1:
            batch = batches[0]
        if batch is None or batch not in batches:
            wanted = "choose one" if batch is None else f"not {batch}"
            raise UserError(f"{path}: the table is for batch {', '.join(map(str, batches))}; {wanted}")
        precision = re.search(r"fp16|fp32|int8", path.stem.lower())
        header = Header(
            name=path.stem,
            kind="measured",
            device="NVIDIA V100",
            runtime="TensorRT",
            precision=precision.group() if precision else "unknown",
            batch=batch,
            units="ms",
            provenance={"how": "official TinyNAS table; convolutions alone have a price", "rows": len(rows)},
            validation={},
            processor="",
            image_sizes=(),
            map_sizes=None,
        )
        grouped: dict[Any, dict[float, dict[str, list[Any]]]] = defaultdict(
            lambda: defaultdict(lambda: {"points": [], "values": []})
        )
        for kind, row_batch, cin, height, _, cout, kernel, stride, fused, ms in rows:
            if row_batch != batch or ms < 0 or height == _DROPPED_HEIGHT:
                continue
            plane = grouped[(kind, stride, fused, kernel)][_table_ratio(kind, cin, cout)]
            plane["points"].append((cout, height))
            plane["values"].append(ms)
        planes = {
            key: {ratio: _Plane(**plane) for ratio, plane in sorted(ratios.items())} for key, ratios in grouped.items()
        }
        return cls(header, planes)

    def at_least(self, operations: Sequence[Operation]) -> float:
        """Nothing is known: the rows are measured values that rise and fall."""
        return 0.0

    def price_many(self, operations: Sequence[Operation]) -> list[Price]:
        """Milliseconds per batch of each operation; what is not a convolution is free, as in the official program."""
        queries = [_query(operation) for operation in operations]
        known = self.milliseconds([query for query in queries if query is not None])
        return [Price(known[query] if query is not None else 0.0, "interpolated", "compute") for query in queries]

    def milliseconds(self, queries: Sequence[Query]) -> dict[Query, float]:
        """Milliseconds per batch of distinct convolutions, infinity where the table has no answer."""
        new: dict[tuple[str, int, int, int], list[Query]] = defaultdict(list)
        for query in dict.fromkeys(queries):
            if query not in self._known:
                new[query[:4]].append(query)
        for key, members in new.items():
            self._known.update(zip(members, self._lookup(key, members), strict=True))
        return {query: self._known[query] for query in queries}

    def _lookup(self, key: tuple[str, int, int, int], queries: list[Query]) -> list[float]:
        planes = self._planes.get(key)
        if planes is None or key[0] == "Grouped":
            return [math.inf] * len(queries)
        cin, height, cout = (np.array([query[i] for query in queries], dtype=float) for i in (4, 5, 6))
        result = np.full(len(queries), math.inf)
        if key[0] == "Depthwise":
            ratio = np.zeros(len(queries))
        else:
            ratio = np.where(cin == 3, 0.0, cin / cout)
        exact = np.isin(ratio, list(planes))
        for value in np.unique(ratio[exact]):
            chosen = ratio == value
            result[chosen] = planes[float(value)](cout[chosen], height[chosen])
        rest = ~exact & (cin != 3)
        ratios = [value for value in planes if value > 0]
        if rest.any() and ratios:
            points, where = np.unique(np.stack([cout[rest], height[rest]], axis=1), axis=0, return_inverse=True)
            values = np.stack([planes[value](points[:, 0], points[:, 1]) for value in ratios], axis=1).tolist()
            pairs = zip(where.ravel().tolist(), ratio[rest].tolist(), strict=True)
            result[rest] = [_over_ratio(ratios, values[point], at) for point, at in pairs]
        return [value if value >= 0 else math.inf for value in result.tolist()]


def _rows(path: Path) -> Any:
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise UserError(
                f"{path}, line {number}: expected {{Regular,batch,in,height,width,out,kernel,stride,fused}} ms, "
                f"got {line[:60]!r}"
            )
        kind, *numbers, ms = match.groups()
        yield (kind, *map(int, numbers), float(ms))


def _table_ratio(kind: str, in_channels: int, out_channels: int) -> float:
    if kind == "Depthwise" or in_channels == 3:
        return 0.0
    return math.floor(100 * in_channels / out_channels) / 100


def _query(operation: Operation) -> Query | None:
    """The table's view of an operation, None for what it prices at nothing."""
    if operation.kind != "conv" or operation.in_height <= 1:
        return None
    dense, depthwise = operation.groups == 1, operation.groups == operation.in_channels == operation.out_channels
    kind = "Regular" if dense else "Depthwise" if depthwise else "Grouped"
    return Query(
        kind,
        operation.stride,
        int(operation.fused_add),
        operation.kernel,
        operation.in_channels,
        operation.in_height,
        operation.out_channels,
    )


def _over_ratio(ratios: Sequence[float], values: Sequence[float], at: float) -> float:
    """Linear in the channel ratio through the planes' values, of which only those that rise are kept."""
    xs: list[float] = []
    ys: list[float] = []
    for x, y in zip(ratios, values, strict=True):
        if len(ys) < 2 or y > ys[-1]:
            xs.append(x)
            ys.append(y)
    if len(xs) == 1:
        return ys[0] * at / xs[0]
    right = min(max(sum(x < at for x in xs), 1), len(xs) - 1)
    slope = (ys[right] - ys[right - 1]) / (xs[right] - xs[right - 1])
    value = ys[right - 1] + slope * (at - xs[right - 1])
    return value if value >= 0 else ys[0] * at / xs[0]
