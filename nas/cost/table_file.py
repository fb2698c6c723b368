"""A latency table: the price of an operation, the file of a device, runtime and precision, and where it holds.

One JSON file each, nothing optional: who measured what, on which processor, at which map sizes.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from annotated_types import MinLen

from nas.blocks.operation import Operation
from nas.errors import Caution, UserError, shown
from nas.files import write_atomic
from nas.options import Count, Name, Rule, read_object

How = Literal["exact", "interpolated", "roofline", "model"]
Bound = Literal["compute", "memory", "launch"]


@dataclass(frozen=True, slots=True)
class Price:
    """Milliseconds of one operation: of a pricer for its whole batch, of a `LatencyTable` per image.

    how: "exact" a measured row, "interpolated" between measured rows, "roofline" a bound scaled to the measured rows,
        "model" the calibrated kernel model.
    """

    ms: float
    how: How
    bound: Bound


class Pricer(Protocol):
    """What a kind of table must offer."""

    def price_many(self, operations: Sequence[Operation]) -> list[Price]:
        """One price per operation, in order."""

    def at_least(self, operations: Sequence[Operation]) -> float:
        """What these operations cost together at least, were any of them larger; 0 where nothing is known."""


FORMAT = "maenas-latency/2"
TABLES = Path(__file__).parent / "tables"
SMALLEST_FIRST = Rule("pixels, smallest first", lambda sides: list(sides) == sorted(sides))
#: The table of a command that is not told another.
DEFAULT_TABLE = "t4_tensorrt_fp16"


@dataclass(frozen=True)
class Header:
    """Who measured or calibrated what, where; `validation` is the error on whole networks (percent), empty if unknown.

    units is always "ms": milliseconds per batch. processor: the chip that computes, CPU or GPU; image_sizes: pixels that
    were timed; map_sizes: smallest and largest side of their maps, which is where the table holds (None: not limited).
    """

    name: Name
    kind: Literal["kernel_model", "measured"]
    device: Name
    runtime: Name
    precision: Name
    batch: Count
    units: Annotated[str, Rule("ms (milliseconds per batch)", "ms".__eq__)]
    provenance: dict[str, Any]
    validation: dict[str, Any]
    processor: Name
    image_sizes: Annotated[tuple[Count, ...], MinLen(1), SMALLEST_FIRST]
    map_sizes: Annotated[tuple[Count, Count], SMALLEST_FIRST] | None

    @property
    def error_percent(self) -> float | None:
        """Mean error over whole networks that the file itself reports, in percent."""
        value = self.validation.get("mape_percent")
        return float(value) if isinstance(value, int | float) else None

    def require(self, *, batch: int | None = None, precision: str | None = None, device: str | None = None) -> None:
        """Raise UserError if the table speaks of another batch, precision or device."""
        for what, wanted, actual in (
            ("batch", batch, self.batch), ("precision", precision, self.precision), ("device", device, self.device)
        ):  # fmt: skip
            if wanted is not None and wanted != actual:
                raise UserError(
                    f"latency table {self.name} is for {what} {actual}, not {wanted}; "
                    f"measure one with python -m nas.profile {what}={wanted}"
                )


def shipped() -> list[str]:
    """Names of the tables that come with the package."""
    return sorted(path.stem for path in TABLES.glob("*.json"))


def find_table(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a shipped table's name, or a path. Raises UserError that lists the names."""
    text = os.fspath(name_or_path)
    named = TABLES / f"{text}.json"
    if os.sep not in text and named.is_file():
        return named
    path = Path(text)
    if path.is_file():
        return path
    raise UserError(
        f"no latency table {text!r}: give a path or one of {', '.join(shipped())}; "
        "python -m nas.profile measures one for this device"
    )


def read_table(path: Path) -> tuple[Header, dict[str, object]]:
    """Header and body of a table file. Raises UserError with one line that names file and fault."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; expected a latency table in JSON") from None
    except (ValueError, RecursionError) as error:  # the latter, and too many digits, are well-formed
        reason = str(error).split(";")[0]
        raise UserError(f"{path}: not a complete JSON file ({reason}); copy or measure it again") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise UserError(
            f"{path}: format must be {FORMAT!r}, got {shown(found)}; python -m nas.profile measures one anew"
        )
    head = {key: data[key] for key in Header.__dataclass_fields__ if key in data}
    return read_object(Header, head | {"name": path.stem}, f"{path}:"), data


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def number(value: object, where: str, minimum: float = 0.0) -> float:
    """A finite number of at least `minimum`, or UserError that says where."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not minimum <= value <= sys.float_info.max:
        raise UserError(f"{where} must be a number of at least {minimum:g}, got {shown(value)}")
    return float(value)


def write_table(path: Path, header: Header, body: Mapping[str, object]) -> None:
    """Write header and body atomically, one row a line so that differences are readable."""
    head = {"format": FORMAT, **{key: value for key, value in asdict(header).items() if key != "name"}}
    plain = {key: value for key, value in body.items() if key != "rows"}
    text = json.dumps(head | plain, indent=1)
    if isinstance(rows := body.get("rows"), list):
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
        text = text[:-2] + ',\n "rows": [\n' + lines + "\n ]\n}"
    write_atomic(path, text + "\n")


@cache
def cpu_name() -> str:
    """Model name with family and model number, as virtual machines call every processor of a maker the same."""
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    numbers = [f"{word} {facts[key]}" for word, key in (("family", "cpu family"), ("model", "model")) if key in facts]
    return f"{facts['model name']} ({', '.join(numbers)})" if numbers else facts["model name"]


#: Runtimes whose times belong to the processor that runs them.
CPU_RUNTIMES = ("onnxruntime", "openvino")
#: How far beyond the timed map sizes a measured table still prices, as a factor of their side.
REACH = 2


def map_sizes(operations: Iterable[Operation]) -> tuple[int, int] | None:
    """Smallest and largest side of the maps that convolutions give (single cells aside), None without any."""
    maps = [(op.height, op.width) for op in operations if op.kind == "conv" and op.height * op.width > 1]
    return (min(map(min, maps)), max(map(max, maps))) if maps else None


def require_covered(header: Header, operations: Iterable[Operation], told: bool = False) -> bool:
    """Whether all maps are among those of the table; a warning (unless it was told) if not.

    A calibrated kernel model follows the physics of a device to any size; raises UserError where measured rows would be
    stretched beyond REACH.
    """
    found = map_sizes(operations)
    if found is None or header.map_sizes is None:
        return True
    (low, high), (smallest, largest) = header.map_sizes, found
    if low <= smallest and largest <= high:
        return True
    sizes = ", ".join(map(str, header.image_sizes))
    error = f"{header.error_percent:g} %" if header.error_percent is not None else "none"
    text = (
        f"latency table {header.name} holds for maps of {low} to {high} pixels (images of {sizes}), not of "
        f"{smallest if smallest < low else largest}: its stated error ({error}) was found inside"
    )
    if header.kind == "measured" and (smallest * REACH < low or largest > high * REACH):
        raise UserError(f"{text.partition(':')[0]}: measure one with python -m nas.profile image_size=[...]")
    if not told:
        warnings.warn(text, Caution, stacklevel=2)
    return False


def warn_elsewhere(header: Header) -> None:
    """Warn if a table of a processor is used on another one."""
    if header.runtime in CPU_RUNTIMES and header.processor != cpu_name():
        warnings.warn(
            f"latency table {header.name} was measured on {header.processor}, this is {cpu_name()}: its milliseconds are "
            "those of the other; python -m nas.profile measures this one",
            Caution,
            stacklevel=2,
        )
