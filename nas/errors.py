"""What a person sees when something is wrong: a clear line that names the thing and the remedy."""

from __future__ import annotations

import sys
import warnings
from typing import Any


class UserError(Exception):
    """Something the user gave cannot be used; the message is one line with the thing and the remedy."""


class SpecError(UserError, ValueError):
    """An architecture description is not a valid network."""


class Caution(UserWarning):
    """What was asked is done, but its result holds with a reservation, which the message says in one line."""


def tell_cautions() -> None:
    """Show each reservation about a result once, as one line without the place in the source."""
    plain, told = warnings.showwarning, set[str]()

    def shown(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, Caution):
            plain(message, category, *where, **more)
        elif str(message) not in told:
            told.add(str(message))
            print(f"warning: {message}", file=sys.stderr)

    warnings.showwarning = shown


class InternalError(Exception):
    """Two results of the program contradict each other: a defect of the program, never of what the user gave."""


def shown(value: object) -> str:
    """A value for a message: one short line, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or a list within itself
        return "something too large to show"
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= 80 else f"{text[:77]}..."
