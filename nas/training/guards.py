"""What ends a training early and whole: a signal between two steps, a loss that is no number before it is saved."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from types import FrameType, TracebackType
from typing import NamedTuple

import torch
from torch import Tensor

from nas.errors import UserError
from nas.loss.distributed import mean_over_processes


class Interrupt:
    """Ctrl-C and SIGTERM at the right moment: never between half-updated weights, at once where nothing is lost.

    Inside this context the first signal is noted in `requested`, for the loop to end after its step.

    Where `immediate` is set (validation), and for a second signal, KeyboardInterrupt is raised on the spot. Outside the
    main thread the context does nothing, as Python delivers signals there alone.
    """

    def __init__(self) -> None:
        self.requested = False
        self.immediate = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested or self.immediate:
            raise KeyboardInterrupt
        self.requested = True


class HostCopy:
    """A small tensor on its way to the host, started when made; `late` if reading it at once would wait for the device.

    A plain read would queue behind everything that was launched since, the next step included.
    """

    def __init__(self, values: Tensor) -> None:
        self.late = values.device.type == "cuda"
        self._values, self._arrived = values, None
        if self.late:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> Tensor:
        """The values on the host, waiting for this copy alone."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._values


class _Pending(NamedTuple):
    step: int
    rate: float
    names: tuple[str, ...]
    losses: HostCopy
    images: tuple[str, ...]


class LossGuard:
    """Passes every step's losses (means over processes) to `write(step, rate, losses)`, in order.

    On a GPU `add` looks at the step before, elsewhere at its own; `flush` looks at the last one, and must precede every
    checkpoint, so that a broken step is never saved. Both raise UserError naming the loss term, the step and the images.
    """

    def __init__(self, write: Callable[[int, float, dict[str, float]], None]) -> None:
        self._write = write
        self._pending: _Pending | None = None

    def add(self, step: int, rate: float, losses: Mapping[str, Tensor], images: Sequence[str]) -> None:
        """Losses of an optimiser step, scalars on any device, and the image files they came from."""
        local = torch.stack([value.detach().float() for value in losses.values()])
        copied = HostCopy(torch.stack([local, mean_over_processes(local)]))
        self.flush()
        self._pending = _Pending(step, rate, tuple(losses), copied, tuple(images))
        if not copied.late:
            self.flush()

    def flush(self) -> None:
        """Check and write what is pending."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        local, values = pending.losses.read().tolist()
        if not all(map(math.isfinite, values)):
            bad = [name for name, value in zip(pending.names, local, strict=True) if not math.isfinite(value)]
            term = ", ".join(bad) or "a loss of another process"
            shown = ", ".join(pending.images[:8]) + (", ..." if len(pending.images) > 8 else "")
            raise UserError(
                f"loss {term} is not finite at step {pending.step}, images {shown}; the last checkpoint is intact: "
                "look at these images, lower trainer.optimizer.lr or set trainer.clip=10"
            )
        self._write(pending.step, pending.rate, dict(zip(pending.names, values, strict=True)))
