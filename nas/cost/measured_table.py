"""Prices from kernels that were timed on a device: the row itself, its measured neighbours, or a bound scaled to them.

A runtime may run one operation as several kernels (a SiLU or a residual sum of its own) and pads channels to blocks;
`Kernels` says how, so that tables and look-ups agree. Between rows the kernel model of the device gives the shape of the
curve and the neighbours' measured ratios to it the height.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from nas.blocks.operation import Operation
from nas.cost.kernel_model import BOUNDS, Features, FloatArray, KernelModel, evaluate
from nas.cost.table_file import Bound, Header, How, Price, number
from nas.errors import UserError
from nas.options import Count, Name, NotNegative, read_object

#: Columns of a row: the kernel, its milliseconds per batch, and the spread of its repetitions in percent of them.
COLUMNS = (
    "kind", "in_channels", "out_channels", "height", "width", "in_height", "in_width",
    "kernel", "stride", "groups", "activation", "fused_add", "ms", "spread_percent",
)  # fmt: skip
SHAPE = COLUMNS[:12]
#: Neighbours that a price between rows is drawn from.
NEIGHBOURS = 6
_TRUST: tuple[How, ...] = ("exact", "interpolated", "roofline")


@dataclass(frozen=True, slots=True)
class Kernels:
    """How a runtime runs operations: channels are padded to blocks; which activations and sums a convolution carries."""

    channel_block: Count
    fused_activations: tuple[Name, ...]
    fuses_sum: bool

    def of(self, operation: Operation) -> list[Operation]:
        """The kernels that this runtime runs for one operation, as keys of the table."""
        plain = self.key(operation)
        if operation.kind not in ("conv", "linear"):
            return [plain]
        fused = operation.activation in self.fused_activations
        sums = operation.fused_add and self.fuses_sum and fused
        result = [replace(plain, activation=plain.activation if fused else "none", fused_add=sums)]
        out = self.padded(operation.out_channels)
        size = (operation.height, operation.width, operation.height, operation.width)
        if not fused:
            result.append(Operation(operation.activation, out, out, *size))
        if operation.fused_add and not sums:
            result.append(Operation("add", 2 * out, out, *size))
        return result

    def padded(self, channels: int) -> int:
        return -(-channels // self.channel_block) * self.channel_block

    def key(self, operation: Operation) -> Operation:
        """An operation without what does not change its time: no norm or bias, and ReLU like no activation."""
        pad = operation.kind == "conv" and operation.in_channels >= self.channel_block
        groups = operation.groups
        channels = (operation.in_channels, operation.out_channels)
        if pad and operation.kind == "conv":
            depthwise = groups == operation.in_channels == operation.out_channels
            channels = (self.padded(channels[0]), self.padded(channels[1]))
            groups = channels[0] if depthwise else groups
        activation = "none" if operation.activation == "relu" else operation.activation
        return Operation(
            operation.kind, *channels, operation.height, operation.width, operation.in_height, operation.in_width,
            operation.kernel, operation.stride, groups, activation, operation.fused_add,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """From the sum of a network's kernels to the whole: factor * sum + offset_ms."""

    factor: Annotated[float, Ge(1e-9)]
    offset_ms: NotNegative


@dataclass(frozen=True, slots=True)
class Row:
    """One timed kernel."""

    kernel: Operation
    ms: float
    spread_percent: float

    def pack(self) -> list[object]:
        return [*(getattr(self.kernel, name) for name in SHAPE), float(f"{self.ms:.5g}"), round(self.spread_percent, 1)]


def _family(kernel: Operation) -> tuple[Any, ...]:
    """Kernels whose measured ratios to the model say something about each other."""
    return kernel.kind, kernel.kernel, kernel.stride, 1 < kernel.groups == kernel.in_channels, kernel.fused_add


def _place(kernel: Operation) -> tuple[float, float, float]:
    return (
        float(np.log2(kernel.in_channels)), float(np.log2(kernel.out_channels)), float(np.log2(kernel.height * kernel.width))
    )  # fmt: skip


class MeasuredRows:
    """A measured table as a pricer; whole networks cost `offset_ms` more than the sum of their operations."""

    def __init__(
        self, rows: Sequence[Row], kernels: Kernels, model: KernelModel, factor: float = 1.0, offset_ms: float = 0.0
    ) -> None:
        self.kernels, self.model, self.factor, self.offset_ms = kernels, model, factor, offset_ms
        self._exact = {row.kernel: row.ms for row in rows}
        base, _ = self._modelled([row.kernel for row in rows])
        ratios = np.log(np.array([row.ms for row in rows]) / base) if rows else np.zeros(0)
        members: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        kinds: dict[str, list[int]] = defaultdict(list)
        for index, row in enumerate(rows):
            members[_family(row.kernel)].append(index)
            kinds[row.kernel.kind].append(index)
        places = np.array([_place(row.kernel) for row in rows]).reshape(-1, 3)
        times = np.array([row.ms for row in rows])
        self._families = {key: (places[chosen], ratios[chosen], times[chosen]) for key, chosen in members.items()}
        self._kinds = {kind: float(np.median(ratios[chosen])) for kind, chosen in kinds.items()}
        self._all = float(np.median(ratios)) if rows else 0.0
        self._lowest = {kind: float(np.min(ratios[chosen])) for kind, chosen in kinds.items()}
        self._lowest_of_all = float(np.min(ratios)) if rows else 0.0

    @classmethod
    def from_body(cls, body: Mapping[str, object], header: Header, where: str) -> MeasuredRows:
        """From a table file. Raises UserError for a corrupt, duplicated or incomplete row, with its number."""
        if body.get("columns") != list(COLUMNS):
            raise UserError(f"{where}: columns must be {', '.join(COLUMNS)}")
        line = read_object(Line, body.get("line"), f"{where}: line")
        kernels = read_object(Kernels, body.get("kernels"), f"{where}: kernels")
        model = KernelModel.from_body(body, header.batch, where)
        return cls(read_rows(body.get("rows"), where), kernels, model, line.factor, line.offset_ms)

    def body(self, rows: Sequence[Row]) -> dict[str, object]:
        """The body of a table file with these rows; without any, that of its kernel model."""
        hardware = asdict(self.model.hardware)
        parameters = {key: float(f"{value:.5g}") for key, value in self.model.parameters.to_dict().items()}
        if not rows:
            return {"hardware": hardware, "parameters": parameters | {"network": self.offset_ms}}
        return {
            "hardware": hardware,
            "parameters": parameters,
            "kernels": asdict(self.kernels) | {"fused_activations": list(self.kernels.fused_activations)},
            "line": {"offset_ms": float(f"{self.offset_ms:.5g}"), "factor": float(f"{self.factor:.5g}")},
            "columns": list(COLUMNS),
            "rows": [row.pack() for row in rows],
        }

    def price_many(self, operations: Sequence[Operation]) -> list[Price]:
        """Milliseconds per batch; an operation of several kernels is as trustworthy as the worst of them."""
        parts = [self.kernels.of(operation) for operation in operations]
        priced = self._price_kernels(list(dict.fromkeys(kernel for group in parts for kernel in group)))
        result = []
        for group in parts:
            prices = [priced[kernel] for kernel in group]
            how = max((price.how for price in prices), key=_TRUST.index)
            result.append(Price(sum(price.ms for price in prices), how, prices[0].bound))
        return result

    def at_least(self, operations: Sequence[Operation]) -> float:
        """The model's prices, which never fall as operations grow, at the lowest measured ratio of the same kind."""
        kernels = [kernel for operation in operations for kernel in self.kernels.of(operation)]
        ratios = [self._lowest.get(kernel.kind, self._lowest_of_all) for kernel in kernels]
        base, _ = self._modelled(kernels)
        return float((base * np.exp(ratios)).sum()) * self.factor

    def _modelled(self, kernels: Sequence[Operation]) -> tuple[FloatArray, list[Bound]]:
        if not kernels:
            return np.zeros(0), []
        features = Features(kernels, self.model.hardware, self.model.batch)
        ms, parts = evaluate(features, self.model.parameters, self.model.hardware)
        return np.maximum(ms, 1e-9), [BOUNDS[index] for index in parts.argmax(axis=0).tolist()]

    def _price_kernels(self, kernels: list[Operation]) -> dict[Operation, Price]:
        base, bounds = self._modelled(kernels)
        groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        result: dict[Operation, Price] = {}
        for index, kernel in enumerate(kernels):
            if kernel in self._exact:
                result[kernel] = Price(self._exact[kernel] * self.factor, "exact", bounds[index])
            else:
                groups[_family(kernel)].append(index)
        for family, chosen in groups.items():
            known = self._families.get(family)
            how: How = "roofline"
            times = base[chosen] * np.exp(self._kinds.get(family[0], self._all))
            if known is not None and len(known[1]) >= 3:
                places = np.array([_place(kernels[index]) for index in chosen])
                how, times = "interpolated", base[chosen] * np.exp(_neighbours(places, known[0], known[1]))
                times = between(times, places, known[0], known[2])
            for index, ms in zip(chosen, times.tolist(), strict=True):
                result[kernels[index]] = Price(ms * self.factor, how, bounds[index])
        return result


def between(times: FloatArray, places: FloatArray, known: FloatArray, known_times: FloatArray) -> FloatArray:
    """Times moved between those of the smaller and of the larger known kernels of one family, where these agree."""
    result = times.copy()
    for start in range(0, len(times), 1024):
        part = slice(start, start + 1024)
        place = places[part, None, :]
        smaller = (known[None] <= place).all(axis=2) & (known[None] != place).any(axis=2)
        larger = (known[None] >= place).all(axis=2) & (known[None] != place).any(axis=2)
        low = np.where(smaller, known_times, 0.0).max(axis=1)
        high = np.where(larger, known_times, np.inf).min(axis=1)
        result[part] = np.where(low <= high, np.clip(times[part], low, high), times[part])
    return result


def consistent(rows: Sequence[Row]) -> list[Row]:
    """The rows with those that contradict both smaller and larger kernels of their family set between them."""
    families: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        families[_family(row.kernel)].append(index)
    result = list(rows)
    for chosen in families.values():
        places = np.array([_place(rows[index].kernel) for index in chosen])
        times = np.array([rows[index].ms for index in chosen])
        for index, ms in zip(chosen, between(times, places, places, times).tolist(), strict=True):
            result[index] = replace(rows[index], ms=ms)
    return result


def _neighbours(places: FloatArray, known: FloatArray, ratios: FloatArray) -> FloatArray:
    """Log ratios at `places` from the nearest known ones, weighted by the inverse square of their distance."""
    result = []
    for start in range(0, len(places), 1024):
        chunk = places[start : start + 1024]
        distance = ((chunk[:, None, :] - known[None, :, :]) ** 2).sum(axis=2)
        count = min(NEIGHBOURS, len(ratios))
        nearest = np.argpartition(distance, count - 1, axis=1)[:, :count]
        weights = 1 / (np.take_along_axis(distance, nearest, axis=1) + 0.02)
        result.append((weights * ratios[nearest]).sum(axis=1) / weights.sum(axis=1))
    return np.concatenate(result)


def read_rows(data: object, where: str) -> list[Row]:
    """Rows of a table file, each checked. Raises UserError that names the first one at fault."""
    if not isinstance(data, list) or not data:
        raise UserError(f"{where}: the table has no rows")
    rows: list[Row] = []
    seen: dict[Operation, int] = {}
    for index, values in enumerate(data, 1):
        place = f"{where}, row {index}"
        if not isinstance(values, list) or len(values) != len(COLUMNS):
            raise UserError(f"{place}: expected {len(COLUMNS)} values ({', '.join(COLUMNS)}), got {str(values)[:60]}")
        fields = dict(zip(COLUMNS, values, strict=True))
        for name in ("kind", "activation"):
            if not isinstance(fields[name], str) or not fields[name]:
                raise UserError(f"{place}: {name} must be a word, got {fields[name]!r}")
        for name in SHAPE[1:10]:
            if type(fields[name]) is not int or fields[name] < 1:
                raise UserError(f"{place}: {name} must be a positive integer, got {fields[name]!r}")
        if type(fields["fused_add"]) is not bool:
            raise UserError(f"{place}: fused_add must be true or false, got {fields['fused_add']!r}")
        kernel = Operation(**{name: fields[name] for name in SHAPE})
        if kernel in seen:
            raise UserError(f"{place}: the same kernel as row {seen[kernel]}; keep one of them")
        seen[kernel] = index
        ms = number(fields["ms"], f"{place}: ms", 1e-9)
        rows.append(Row(kernel, ms, number(fields["spread_percent"], f"{place}: spread_percent")))
    return rows
