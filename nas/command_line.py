"""The commands as people type them: what each does and takes, read from its docstring and its file of conf/; and mistakes
understood, or answered with the line to type. Neither torch nor Hydra is imported."""

from __future__ import annotations

import ast
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from nas.errors import UserError
from nas.extensions import CHOSEN, installed
from nas.files import config_folder, read_text, read_yaml

COMMANDS = (
    "search",
    "select",
    "train",
    "evaluate",
    "predict",
    "export",
    "verify",
    "benchmark",
    "profile",
    "rank",
    "compare",
    "data",
    "list",
)
#: Settings whose value is a file or a folder.
PATHS = {"model", "source", "images", "hardware", "resume", "folder", "output", "table", "tables", "networks", "inputs",
         "annotations", "published", "data", "data.root", "weights", "distill.teacher", "key", "sign", "dataset"}  # fmt: skip
#: Flags of Hydra after which no value follows.
_ALONE = {"-m", "--multirun", "-r", "--run", "--resolve", "--hydra-help", "--version"}


class About(NamedTuple):
    """What the docstring of a command says: one sentence, the settings of its example, and the rest."""

    sentence: str
    example: str
    rest: str


@cache
def about(command: str) -> About:
    """The docstring of nas/COMMAND.py, which begins `python -m nas.COMMAND EXAMPLE: sentence.`; nothing is imported."""
    folder = Path(__file__).resolve().parent
    path = next(p for p in (folder / f"{command}.py", folder / command / "__main__.py") if p.is_file())
    first, _, rest = (ast.get_docstring(ast.parse(read_text(path))) or "").partition("\n\n")
    found = re.fullmatch(r"python -m nas\.\w+\s*(.*?):\s+(.*)\.", " ".join(first.split()))
    assert found is not None, path
    return About(found[2], found[1], rest)


def show(text: str) -> None:
    """Print, and be content if the reader has gone (`maenas list models | head`)."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails at its end


def program(command: str) -> str:
    """How the command was called: `maenas search`, or `python -m nas.search`."""
    return f"maenas {command}" if Path(sys.argv[0]).stem == "maenas" else f"python -m nas.{command}"


def example(command: str) -> str:
    """A whole line to type."""
    return f"{program(command)} {about(command).example}".rstrip()


@cache
def groups(command: str) -> dict[str, str | None]:
    """The groups of a command with their defaults: those of the defaults list of its file, and those that its first lines
    add (`+budget=`), which have none."""
    path = Path(config_folder()) / f"{command}.yaml"
    if not path.is_file():
        return {}
    head = "\n".join(line for line in read_text(path).splitlines() if line.startswith("#"))
    added = {name: None for name in re.findall(r"\+(\w+)[=.]", head) if (path.parent / name).is_dir()}
    document: Any = read_yaml(path)
    entries = (entry for entry in document["defaults"] if isinstance(entry, dict))
    chosen = {name: value for entry in entries for name, value in entry.items() if not name.startswith("override ")}
    return added | chosen


def options(group: str) -> list[str]:
    """The names that can be chosen in a group, installed entry points included."""
    if group == "space":
        from search_spaces import space_names

        names = list(space_names())
    else:
        names = sorted(path.stem for path in (Path(config_folder()) / group).glob("*.yaml"))
        if group == "scorer":
            from nas.scorers import SCORERS

            names += [name for name in SCORERS if name not in names]
    own = next((kind for kind in CHOSEN if kind == group), None)
    return [*names, *(installed(own) if own else ())]


def settings(command: str) -> dict[str, object]:
    """The settings of a command's file with their defaults, without its groups."""
    path = Path(config_folder()) / f"{command}.yaml"
    values: Any = read_yaml(path) if path.is_file() else {}
    return {key: value for key, value in values.items() if key not in ("defaults", "hydra")}


def help_text(command: str) -> str:
    """What `--help` prints: examples, the command's own groups, and its settings as its file explains them."""
    sentence, _, rest = about(command)
    lines = read_text(Path(config_folder()) / f"{command}.yaml").splitlines()
    head = [line.lstrip("# ") for line in lines if line.startswith("#")]
    body = "\n".join(lines[lines.index("defaults:") :]).partition("\nhydra:")[0].split("\n\n", 1)[1]
    shown = [f"  {line}".replace(f"python -m nas.{command}", program(command)) for line in head]
    lists = []
    for group, default in groups(command).items():
        names = [f"[{name}]" if name == default else name for name in options(group)]
        lists += [*_wrapped(f"+{group}" if default is None else group, names)]
    parts = [f"{sentence[0].upper()}{sentence[1:]}.", "\n".join(shown), rest]
    if lists:
        told = "Groups: each takes one of these names, [the default] unless told; a setting of one is neck.depth=4"
        parts.append("\n".join([f"{told} (maenas list tells of them):", *lists]))
    parts.append("\n".join(["Settings:", *(f"  {line}".rstrip() for line in body.strip().splitlines())]))
    parts.append("-m sweeps over values separated by commas; --cfg job prints all settings and runs nothing.")
    return "\n\n".join(part for part in parts if part)


def _wrapped(name: str, words: Sequence[str], width: int = 112) -> Iterator[str]:
    """Words in lines, the first after a name."""
    line = f"  {name:13}"
    for word in words:
        if len(line) + len(word) > width:
            yield line.rstrip()
            line = " " * 15
        line += f"{word} "
    yield line.rstrip()


def understood(command: str, words: Sequence[str]) -> list[str]:
    """The words as Hydra takes them: `budget=...` is added where a command has no budget until it is told one, `data=...` goes
    to the setting that takes its pictures or its digest where it is no group, and paths that exist are expanded and quoted.

    Raises UserError with the line to type for a word that is no setting, such as `latency_3ms` alone.
    """
    known = groups(command)
    added = tuple(f"{name}{mark}" for name, default in known.items() if default is None for mark in "=.")
    takes = next((key for key in ("images", "source", "dataset") if key in settings(command)), None)
    if takes and "data" not in known:
        words = [f"{takes}={word[5:]}" if word.startswith("data=") else word for word in words]
    read = [f"+{word}" if added and word.startswith(added) else _quoted(word) for word in words]
    bare = [
        word
        for before, word in zip(["", *read], read, strict=False)
        if "=" not in word and word[:1] not in ("-", "~") and not (before.startswith("-") and before not in _ALONE)
    ]
    if bare and known | settings(command):
        meant = {word: _setting(command, word) for word in bare}
        unknown = next((word for word, setting in meant.items() if not setting), None)
        if unknown is not None:
            raise UserError(f"{unknown!r} is no setting: {program(command)} --help lists those that there are")
        line = shlex.join(meant.get(word, word) for word in read)
        raise UserError(f"{bare[0]!r} alone is no setting; type: {program(command)} {line}")
    return read


def _quoted(word: str) -> str:
    """A setting whose value is a path with signs that Hydra would read as its own, in quotes."""
    key, _, value = word.partition("=")
    path = os.path.expanduser(value)
    if key == "data" or key not in PATHS or not re.search(r"[^\w./-]", value) or not os.path.exists(path):
        return word
    text = path.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{text}'"


def _setting(command: str, word: str) -> str:
    """The setting that a bare word can be meant as, or nothing."""
    for group, default in groups(command).items():
        if word in options(group):
            return f"{'+' * (default is None)}{group}={word}"
    own = settings(command)
    if word in own:
        return f"{word}=..."
    if "model" in own and _is_model(word):
        return f"model={word}"
    place = next((key for key in ("source", "data", "dataset") if key in own or key in groups(command)), None)
    return f"{place}={word}" if place and os.path.exists(os.path.expanduser(word)) else ""


def _is_model(word: str) -> bool:
    from search_spaces.published import is_published

    return word.endswith((".safetensors", ".onnx", ".xml", ".engine", "best.yaml")) or is_published(word)
