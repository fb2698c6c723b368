"""Where a latency table holds: the map sizes that were timed, and the processor that they were timed on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from nas.blocks.operation import Operation
from nas.cost.processor import cpu_name
from nas.cost.table_file import Header
from nas.errors import Caution, UserError

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
