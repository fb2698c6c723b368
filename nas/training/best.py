"""Which figure of a validation decides what the best weights are, and whether the data can give it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from nas.data.dataset import DetectionData
from nas.errors import UserError
from nas.training.options import TrainerOptions

#: Areas in square pixels, from and to, by the end of a figure's name, as COCO measures them.
AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, math.inf)}


def worth(numbers: Mapping[str, float], best: str) -> float:
    """The figure `best` of a validation, turned so that more is better; a loss that is no number is worth least."""
    value = numbers[best]
    if best != "loss":
        return value
    return -math.inf if math.isnan(value) else -value


def figure(worth: float, best: str) -> float:
    """The figure that is worth so much."""
    return -worth if best == "loss" else worth


def title(best: str) -> str:
    """The figure's name to read: AP, AP50, AP small, AR100, loss."""
    kind, _, area = best.partition("_")
    return "loss" if best == "loss" else f"{kind.upper()} {area}".strip()


def check_best(options: TrainerOptions, val: DetectionData | None) -> None:
    """Raise UserError where no validation will ever have the figure `trainer.best`; AP is always taken as it comes."""
    best, place = options.best, f"trainer.best={options.best}"
    if best == "ap":
        return
    if val is None:
        raise UserError(f"{place}: the data has no validation split, which alone gives it")
    if best == "loss":
        if not options.validation_loss:
            raise UserError(f"{place} needs trainer.validation_loss=true")
        return
    areas = np.concatenate([np.zeros(0), *(record.areas for record in val.records)])
    low, high = AREAS.get(best.partition("_")[2], (0.0, math.inf))
    if not ((areas >= low) & (areas <= high)).any():
        kind = best.partition("_")[2]
        sizes = f"from {low:g}{f' to {high:g}' if high < math.inf else ''} square pixels"
        missing = f"no {kind} box ({sizes})" if kind else "no box"
        raise UserError(f"{place}: the validation split has {missing}; take another figure, or trainer.best=ap")
