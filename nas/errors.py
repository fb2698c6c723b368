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
