"""What a list of operations costs on a device: milliseconds per image, how each was priced, and what bounds it.

A table made with several images at once prices a batch; here, and from here on everywhere, a price is an image's share.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from nas.blocks.operation import Operation
from nas.cost.kernel_model import KernelModel
from nas.cost.postprocess import PostProcess, read_postprocess, unknown_after
from nas.cost.table_file import Header, Price, Pricer, find_table, read_table, require_covered, warn_elsewhere
from nas.report.canvas import BOUND_COLOURS, Shown, canvas, label
from nas.spec import Backbone, DetectorSpec, image_side

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class PricedOperation:
    """One line of an explanation."""

    operation: Operation
    price: Price


@dataclass(frozen=True, repr=False)
class Latency(Shown):
    """Milliseconds per image of a whole network, usable as a float.

    `error_percent` is the table's own mean error, None if unknown; `after_ms` what follows the network until boxes, None
    where the table does not tell or this is no detector. The picture has a bar an operation, in order.
    """

    ms: float
    offset_ms: float
    rows: tuple[PricedOperation, ...]
    header: Header
    after_ms: float | None = None

    @property
    def e2e_ms(self) -> float:
        """Milliseconds until boxes: with what follows the network. UserError where the table does not tell."""
        if self.after_ms is None:
            raise unknown_after(self.header.name)
        return self.ms + self.after_ms

    @property
    def error_percent(self) -> float | None:
        return self.header.error_percent

    def __float__(self) -> float:
        return self.ms

    def explain(self) -> tuple[PricedOperation, ...]:
        """Operation by operation, in execution order; with `offset_ms` they sum to `ms`."""
        return self.rows

    def __repr__(self) -> str:
        return f"Latency({self}, {len(self.rows)} operations)"

    def to_dict(self) -> dict[str, object]:
        rows = [{**asdict(row.operation), **asdict(row.price)} for row in self.rows]
        known: dict[str, object] = {
            "table": self.header.name,
            "error_percent": self.error_percent,
            "batch": self.header.batch,
        }
        if self.after_ms is not None:
            known |= {"after_ms": self.after_ms, "e2e_ms": self.e2e_ms}
        return {"ms": self.ms, "offset_ms": self.offset_ms, **known, "operations": rows}

    def plot(self) -> Figure:
        figure, axes = canvas(1, 1, 8, 3)
        for bound, colour in BOUND_COLOURS.items():
            here = [(number, row.price.ms) for number, row in enumerate(self.rows) if row.price.bound == bound]
            axes[0, 0].bar(*(zip(*here, strict=True) if here else ([], [])), color=colour, label=bound)
        label(axes[0, 0], str(self), "operation, in order", "ms")
        axes[0, 0].legend(title="bound by", fontsize=8, frameon=False)
        return figure

    def __str__(self) -> str:
        margin = f" ± {self.ms * self.error_percent / 100:.2f}" if self.error_percent is not None else ""
        unit = "ms" if self.header.batch == 1 else "ms per image"
        after = "" if self.after_ms is None else f", {self.e2e_ms:.3f} until boxes"
        return f"{self.ms:.3f}{margin} {unit}{after} ({self.header.name}, batch {self.header.batch})"


class LatencyTable:
    """Prices operations per image and remembers them, so that a mutated candidate costs microseconds."""

    def __init__(
        self,
        header: Header,
        pricer: Pricer,
        digest: str,
        offset_ms: float = 0.0,
        postprocess: PostProcess | None = None,
    ) -> None:
        self.header = header
        self.digest = digest
        self.postprocess = postprocess
        self._offset_ms = offset_ms
        self._pricer = pricer
        self._outside = False
        self._prices: dict[Operation, Price] = {}

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str], batch: int | None = None) -> LatencyTable:
        """A shipped table by name, or a file: JSON of this project, or the official TinyNAS text table.

        batch: refuses a table for another one; chooses among those of an official table.
        Raises UserError in one line for a missing, truncated, corrupt, duplicated or unit-less table.
        """
        path = find_table(name_or_path)
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:16]
        if content.lstrip()[:8].startswith((b"{Regular", b"{Depthwi")):
            from nas.cost.official_table import OfficialTable

            official = OfficialTable.read(path, batch)
            return cls(official.header, official, digest)
        header, body = read_table(path)
        header.require(batch=batch)
        after = read_postprocess(body, str(path))
        warn_elsewhere(header)
        if header.kind == "kernel_model":
            model = KernelModel.from_body(body, header.batch, str(path))
            return cls(header, model, digest, model.offset_ms, after)
        from nas.cost.measured_table import MeasuredRows

        rows = MeasuredRows.from_body(body, header, str(path))
        return cls(header, rows, digest, rows.offset_ms, after)

    @property
    def name(self) -> str:
        return self.header.name

    @property
    def offset_ms(self) -> float:
        """What a whole network costs per image beside its operations (a measured calibration line; 0 for models)."""
        return self._offset_ms / self.header.batch

    def after_ms(self, num_classes: int, one_to_one: bool, image_size: int) -> float:
        """What follows the network of a detector until boxes, per image; UserError where this table does not tell."""
        if self.postprocess is None:
            raise unknown_after(self.name)
        return self.postprocess.ms(num_classes, one_to_one, image_size)

    def price(self, operation: Operation) -> Price:
        """The price of one operation, remembered."""
        return self._prices.get(operation) or self.price_many([operation])[0]

    def price_many(self, operations: Sequence[Operation]) -> list[Price]:
        """Prices of many operations at once: new ones are computed together, which makes large spaces cheap.

        Outside the map sizes of the table it warns, far outside those of a measured one it raises UserError.
        """
        new = [operation for operation in dict.fromkeys(operations) if operation not in self._prices]
        if new:
            self._outside |= not require_covered(self.header, new, self._outside)
            batch = self.header.batch
            prices = (replace(price, ms=price.ms / batch) for price in self._pricer.price_many(new))
            self._prices.update(zip(new, prices, strict=True))
        return [self._prices[operation] for operation in operations]

    def at_least(self, operations: Sequence[Operation]) -> float:
        """Milliseconds that these operations cost at least, were any of them larger; 0 where the table cannot tell."""
        return self._pricer.at_least(operations) / self.header.batch

    def total(self, operations: Iterable[Operation]) -> Latency:
        """Latency of a whole network, with its explanation."""
        listed = list(operations)
        rows = tuple(map(PricedOperation, listed, self.price_many(listed)))
        return Latency(self.offset_ms + sum(row.price.ms for row in rows), self.offset_ms, rows, self.header)


def after_network(table: LatencyTable, network: object, image_size: int | None = None) -> float | None:
    """Milliseconds of what follows a detector (a spec or a torch module) until boxes, by a table; None where it does not tell,
    or this is no detector."""
    head: Any = network.head if isinstance(network, DetectorSpec) else network
    num_classes = getattr(head, "num_classes", None)
    if table.postprocess is None or num_classes is None or isinstance(network, Backbone):
        return None
    one_to_one = bool(getattr(head, "one_to_one", getattr(head, "end_to_end", False)))
    return table.after_ms(num_classes, one_to_one, image_side(network, image_size))
