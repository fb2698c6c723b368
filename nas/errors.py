"""The one exception that a person sees: a clear line that names the thing and the remedy."""

from __future__ import annotations


class UserError(Exception):
    """Something the user gave cannot be used; the message is one line with the thing and the remedy."""


class SpecError(UserError, ValueError):
    """An architecture description is not a valid network."""
