"""Words and `key=value` options of an experiment's command line, its workers, and the one-line end of one that cannot go on."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nas.errors import UserError, tell_cautions


def split_words(words: Sequence[str], defaults: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The bare words, and the options over their defaults, each of the type of its default.

    Raises UserError for an option that is not known or a value of another type.
    """
    bare = [word for word in words if "=" not in word]
    values = dict(defaults)
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            continue
        if name not in values:
            raise UserError(f"unknown option {word!r}; known: {', '.join(values)}")
        values[name] = _converted(name, text, type(defaults[name]))
    return bare, values


def options_of(words: Sequence[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a command that takes no bare words; raises UserError as split_words, and for a bare word."""
    bare, values = split_words(words, defaults)
    if bare:
        raise UserError(f"unknown option {bare[0]!r}; known: {', '.join(values)}")
    return values


def _converted(name: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text not in ("true", "false"):
            raise UserError(f"{name} must be true or false, got {text!r}")
        return text == "true"
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{name} must be a {kind.__name__}, got {text!r}") from None


def run(main: Callable[[list[str]], object]) -> None:
    """Run a command on the words of the command line: a UserError, or a disk that refuses, ends it with a line and status 1,
    Ctrl-C with 130.

    `--help` prints what the command's file says of itself."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print((main.__globals__["__doc__"] or "").strip())
        return
    tell_cautions()
    try:
        main(sys.argv[1:])
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def shard_of(text: str) -> tuple[int, int]:
    """Index and count of `i/n`; UserError for anything else."""
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise UserError(f"shard={text}: i/n with i from 0 to n - 1")
    return int(index), int(count)


def run_workers(module: str, arguments: Sequence[str], jobs: int, shard: str = "0/1", most: int = 0) -> None:
    """The same command by `jobs` workers side by side, the shard and the `most` runs (0: all) dealt among them.

    Raises UserError if a worker fails.
    """
    index, count = shard_of(shard)
    rest = [word for word in arguments if word.partition("=")[0] not in ("jobs", "shard", "most")]
    rest += [f"most={math.ceil(most / jobs)}"] if most else []
    shards = [f"shard={index + count * worker}/{count * jobs}" for worker in range(jobs)]
    workers = [subprocess.Popen([sys.executable, "-m", module, *rest, shard]) for shard in shards]
    try:
        codes = [worker.wait() for worker in workers]
    except KeyboardInterrupt:
        for worker in workers:
            worker.wait()
        raise
    if any(codes):
        raise UserError(f"{sum(map(bool, codes))} of {len(codes)} workers failed; run the same command again to go on")
