"""What a person sees when something is wrong: a clear line that names the thing and the remedy."""

from __future__ import annotations


class UserError(Exception):
    """Something the user gave cannot be used; the message is one line with the thing and the remedy."""


class SpecError(UserError, ValueError):
    """An architecture description is not a valid network."""


class Caution(UserWarning):
    """What was asked is done, but its result holds with a reservation, which the message says in one line."""


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
