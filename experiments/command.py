"""Words of a command line as `key=value`, and the one-line end of a command that cannot go on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from nas.errors import UserError


def arguments(defaults: Mapping[str, str]) -> dict[str, str]:
    """The key=value words of the command line over their defaults; raises UserError for an unknown or bare word."""
    values = dict(defaults)
    for word in sys.argv[1:]:
        key, equals, value = word.partition("=")
        if not equals or key not in defaults:
            raise UserError(
                f"unknown argument {word!r}; give any of {', '.join(f'{k}={v}' for k, v in defaults.items())}"
            )
        values[key] = value
    return values


def run(main: Callable[[], None]) -> None:
    """Run a command; a UserError ends it with its line and status 1."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
