"""Ctrl-C and SIGTERM at the right moment: never between half-updated weights, at once where nothing is lost."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interrupt:
    """Inside this context the first signal is noted in `requested`, for the loop to end after its step.

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
