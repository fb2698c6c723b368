"""`maenas COMMAND ...`, which is `python -m nas.COMMAND ...`: the overview of the commands, and tab completion.

In ~/.bashrc: eval "$(maenas completion bash)"
"""

from __future__ import annotations

import difflib
import re
import runpy
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nas.command_line import COMMANDS, PATHS, about, groups, help_text, options, settings, show
from nas.files import config_folder, read_yaml

#: Bash hands over the line up to the cursor; it replaces only what follows the last of its own word breaks (= and :).
BASH = r"""
_maenas() {
  local line="${COMP_LINE:0:COMP_POINT}" word found
  word="${line##*[[:space:]]}"
  COMPREPLY=()
  while IFS= read -r found; do
    COMPREPLY+=("${found#"${word%"$2"}"}")
    [[ $found == *[=./,] ]] && compopt -o nospace 2>/dev/null
  done < <("$1" completion words "$line" 2>/dev/null)
}
complete -F _maenas maenas
"""


def main() -> None:
    """Entry point of `maenas`."""
    name, *words = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        show(overview())
    elif name == "--version":
        import nas

        print(nas.__version__)
    elif name == "completion":
        print(BASH.strip() if words in ([], ["bash"]) else "\n".join(completed(words[-1])))
    elif name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1, 0.5)
        hint = f"did you mean maenas {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        sys.exit(f"error: maenas has no command {name!r}; {hint}")
    elif name != "list" and {"-h", "--help"} & set(words):
        show(help_text(name))
    else:
        sys.argv = [sys.argv[0], *words]
        runpy.run_module(f"nas.{name}", run_name="__main__")


def overview() -> str:
    """A line and an example of every command, in one screen."""
    lines = ["maenas COMMAND [setting=value ...]       maenas COMMAND --help: its settings"]
    for name in COMMANDS:
        lines += [f"  {name:10}{about(name).sentence}", f"            maenas {name} {about(name).example}"]
    return "\n".join(lines)


def completed(line: str) -> list[str]:
    """The words that can stand at the end of a line, which begins with the program's name."""
    words = re.split(r"\s+", line.lstrip())
    last = words[-1]
    if len(words) <= 2:
        found: Iterable[str] = (*COMMANDS, "completion")
    elif words[1] == "list":
        from nas.list import KINDS

        found = KINDS
    elif words[1] in COMMANDS:
        found = _values(last) if "=" in last else _settings(words[1], last)
    else:
        found = ("bash",) if words[1] == "completion" else ()
    return sorted({word for word in found if word.startswith(last)})


def _settings(command: str, word: str) -> Iterator[str]:
    """`group=`, `setting=`, and those inside a group once its name is written: `trainer.`."""
    yield from ("--help", "--multirun", "--cfg")
    prefix, dot, _ = word.rpartition(".")
    if dot:
        yield from (f"{prefix}.{key}" for key in _inside(prefix.lstrip("+")))
        return
    for group, default in groups(command).items():
        added = "+" if default is None and word.startswith("+") else ""
        yield from (f"{added}{group}=", f"{added}{group}.")
    yield from (f"{key}=" for key in settings(command))


def _inside(path: str) -> set[str]:
    """The keys below `trainer` or `trainer.optimizer`, as the files of the group have them."""
    group, *rest = path.split(".")
    found: set[str] = set()
    for file in (Path(config_folder()) / group).glob("*.yaml"):
        value: Any = read_yaml(file)
        for part in rest:
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, dict):
            found |= {f"{key}." if isinstance(inner, dict) else f"{key}=" for key, inner in value.items()}
    return found - {"name=", "defaults="}


def _values(word: str) -> Iterator[str]:
    """What can follow `group=`, also as one of several values: `+budget=[latency_3ms,`."""
    key = word.partition("=")[0].lstrip("+")
    start = max(word.rfind(mark) for mark in "=,[") + 1
    before, begun = word[:start], word[start:]
    if (Path(config_folder()) / key).is_dir() or key == "space":
        yield from (f"{before}{name}" for name in options(key))
    if key == "model":
        from nas.list import models

        yield from (f"{before}{name}" for name in models())
    if key == "hardware":
        from nas.cost.table_file import shipped

        yield from (f"{before}{name}" for name in shipped())
    if key in PATHS:
        folder, slash, _ = begun.rpartition("/")
        for path in Path(f"{folder}{slash}" or ".").expanduser().glob("*"):
            yield f"{before}{folder}{slash}{path.name}{'/' * path.is_dir()}"


if __name__ == "__main__":
    main()
