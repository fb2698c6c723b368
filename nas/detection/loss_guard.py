"""Reads the losses one step late, so that a GPU never waits, and stops at the first that is not a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nas.detection.distributed import mean_over_processes
from nas.errors import UserError


class _Pending(NamedTuple):
    step: int
    rate: float
    names: tuple[str, ...]
    local: Tensor
    shared: Tensor
    images: tuple[str, ...]


class LossGuard:
    """Passes every step's losses (means over processes) to `write(step, rate, losses)`, in order.

    `add` looks at the step before; `flush` at the last one, and must precede every checkpoint, so that a broken step is
    never saved. Both raise UserError naming the loss term, the step and the images.
    """

    def __init__(self, write: Callable[[int, float, dict[str, float]], None]) -> None:
        self._write = write
        self._pending: _Pending | None = None

    def add(self, step: int, rate: float, losses: Mapping[str, Tensor], images: Sequence[str]) -> None:
        """Losses of an optimiser step, scalars on any device, and the image files they came from."""
        local = torch.stack([value.detach().float() for value in losses.values()])
        pending = _Pending(step, rate, tuple(losses), local, mean_over_processes(local), tuple(images))
        self.flush()
        self._pending = pending
        if local.device.type == "cpu":
            self.flush()

    def flush(self) -> None:
        """Check and write what is pending."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        values = pending.shared.tolist()
        if not bool(torch.isfinite(pending.shared).all()):
            local = pending.local.tolist()
            bad = [name for name, v in zip(pending.names, local, strict=True) if v != v or abs(v) == float("inf")]
            term = ", ".join(bad) or "a loss of another process"
            shown = ", ".join(pending.images[:8]) + (", ..." if len(pending.images) > 8 else "")
            raise UserError(
                f"loss {term} is not finite at step {pending.step}, images {shown}; the last checkpoint is intact: "
                "look at these images, lower trainer.optimizer.lr or set trainer.clip=10"
            )
        self._write(pending.step, pending.rate, dict(zip(pending.names, values, strict=True)))
