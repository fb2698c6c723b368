"""A network at work: in eval mode and without gradients, timed, and one line when memory runs out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.options import Resize, in_squares

#: What a network that predicts gives, scores (B, N, C) and boxes (B, N, 4) first.
Outputs = Sequence[Tensor | np.ndarray]


@contextmanager
def inference(model: object) -> Iterator[torch.device]:
    """A torch module in eval mode without gradients, its mode restored afterwards; the device that it runs on."""
    if not isinstance(model, nn.Module):
        with torch.inference_mode():
            yield torch.device("cpu")
        return
    training = [module.training for module in model.modules()]
    parameter = next(model.parameters(), None)
    model.eval()
    try:
        with torch.inference_mode():
            yield parameter.device if parameter is not None else torch.device("cpu")
    finally:
        for module, mode in zip(model.modules(), training, strict=True):
            module.training = mode


def resize_for(network: object, asked: Resize | None) -> Resize:
    """How pictures become a network's inputs: as asked, None: as it says, or stretched; one that takes squares alone gets
    `letterbox` in the place of `rectangle`, which a line tells."""
    own: Resize = getattr(network, "resize", "stretch")
    resize = asked or own
    if resize == "rectangle" and getattr(network, "squares_alone", False):
        print("resize=rectangle: this network takes squares alone, its pictures are letterboxed", flush=True)
        return in_squares(resize)
    return resize


def now(device: torch.device) -> float:
    """The clock in seconds, once the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def milliseconds(
    network: Callable[[Tensor], object], images: Tensor, runs: int, warm_up: int, seconds: float = math.inf
) -> list[float]:
    """Times of up to `runs` calls on the same images after some to warm up; about `seconds` long at most."""
    times: list[float] = []
    with inference(network) as device:
        pixels, began = images.to(device), time.perf_counter()
        for run in range(warm_up + runs):
            started = now(device)
            network(pixels)
            if run >= warm_up:
                times.append(1000 * (now(device) - started))
            if times and time.perf_counter() - began > seconds:
                break
    return times


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
