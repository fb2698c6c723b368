"""Search spaces by name; each family's module is imported only when one of its spaces is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from nas.errors import UserError
from search_spaces.base import SearchSpace

#: Modules whose `SPACES` map names to spaces, in the order in which they are listed.
FAMILIES = ("search_spaces.tinynas", "search_spaces.giraffe", "search_spaces.gelan", "search_spaces.c3k2")


def _spaces() -> dict[str, SearchSpace[Any]]:
    found: dict[str, SearchSpace[Any]] = {}
    for family in FAMILIES:
        found |= importlib.import_module(family).SPACES
    return found


def space_names() -> tuple[str, ...]:
    """Names of all search spaces."""
    return tuple(_spaces())


def changed_limits(space: SearchSpace[Any]) -> dict[str, Any]:
    """The limits in which a space differs from the shipped one of its name, for `find_space`; all of any other space."""
    usual = _spaces().get(space.name)
    limits = space.limits()
    return limits if type(usual) is not type(space) else differences(limits, usual.limits())


def differences(values: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `values` that are not as `usual`; of mappings within, theirs."""
    return {
        key: differences(value, usual[key]) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value != usual[key]
    }


def find_space(name: str, **limits: Any) -> SearchSpace[Any]:
    """The space of that name, with other limits if given; raises UserError for an unknown name or limit."""
    spaces = _spaces()
    if name not in spaces:
        raise UserError(f"unknown search space {name!r}; known: {', '.join(spaces)}")
    return spaces[name].override(**limits) if limits else spaces[name]
