"""A run's own settings in its folder: stored, taken up again by `resume=FOLDER`, and the line that does so."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from nas.errors import UserError
from nas.extensions import CHOSEN, is_reference
from nas.files import dump_yaml, read_yaml, write_atomic
from nas.options import read_object

Settings = TypeVar("Settings")


def store_settings(settings: Settings, folder: Path, free: Collection[str]) -> Path:
    """Write config.yaml, from which `continued` goes on. free: what may differ between a run and its continuation."""
    kept = {name: value for name, value in asdict(cast(Any, settings)).items() if name not in free}
    return write_atomic(folder / "config.yaml", dump_yaml(kept))


def continued(settings: Settings, given: Sequence[str], free: Collection[str], also: Collection[str] = ()) -> Settings:
    """The settings of the run in the folder `settings.resume`, with what was given of those that may differ.

    given: the settings of the command line; free: names, dotted ones too; also: those that stay unless they are given.
    Raises UserError for a given setting that may not differ, and for a folder that holds no run of this command.
    """
    folder = Path(cast(Any, settings).resume)
    names = {name: text for text in given if (name := _name(text)) != "use"}
    if changed := [text for name, text in names.items() if name not in (*free, *also)]:
        raise UserError(f"resume={folder} goes on with its own settings; take away {', '.join(changed)}")
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"nothing to resume in {folder}: there is no config.yaml; give the folder of an interrupted run"
        )
    kept = read_object(type(settings), read_yaml(path), f"{path}:")
    changes = {name: getattr(settings, name) for name in free if "." not in name}
    changes |= {name: getattr(settings, name) for name in also if name in names and "." not in name}
    for group, _, name in (text.partition(".") for text in names if "." in text):
        before = changes.get(group, getattr(kept, group))
        changes[group] = replace(before, **{name: getattr(getattr(settings, group), name)})
    return cast(Settings, replace(cast(Any, kept), **changes))


def continuation(folder: Path, given: Sequence[str], free: Collection[str]) -> str:
    """The settings to type with which a stopped run goes on: its folder, what was given of `free`, and `use=` of the modules
    of one's own that were named, as a stored configuration imports none."""
    kept = [text for text in given if (name := _name(text)) in free and name != "resume"]
    named = [text.partition("=")[2].strip("'\"") for text in given if _name(text).partition(".")[0] in CHOSEN]
    modules = dict.fromkeys([*uses(given)[0], *(name.partition(":")[0] for name in named if is_reference(name))])
    return shlex.join([f"resume={folder}", *kept, *[f"use=[{','.join(modules)}]"] * bool(modules)])


def _name(text: str) -> str:
    """The name of a setting as it was given."""
    return text.partition("=")[0].lstrip("+~")


def uses(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The modules of `use=[...]`, and the other arguments."""
    given = [argument for argument in arguments if argument.lstrip("+").startswith("use=")]
    names = [name.strip(" '\"") for text in given for name in text.partition("=")[2].strip("[]'\" ").split(",")]
    return [name for name in names if name], [argument for argument in arguments if argument not in given]
