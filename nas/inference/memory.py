"""Memory that ran out, told in one line that names what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nas.errors import UserError


@contextmanager
def told_when_full(lower: str) -> Iterator[None]:
    """Inside this context (or the function that it decorates) memory that runs out is a UserError: where, and `lower`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        place = _full(error)
        if place is None:
            raise
        raise UserError(f"{place}: lower {lower}") from None


def _full(error: BaseException) -> str | None:
    """Which memory an error says is full; None for an error of another kind."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or "ALLOC_FAILED" in text:
        return "out of memory on the GPU"
    if "shared memory" in text:
        return "out of shared memory"
    if isinstance(error, MemoryError) or "allocate memory" in text or "not enough memory" in text:
        return "out of memory"
    if "DataLoader worker" in text and ("Killed" in text or "exited unexpectedly" in text):
        return "a process that prepares batches was killed, as happens when memory runs out"
    return None
