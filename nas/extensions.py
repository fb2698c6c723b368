"""Code of one's own: found by `module:attribute`, or by the name of an installed entry point; no file makes it run.

A person who writes `space=my_package.spaces:Slim` on the command line, or `use=[my_package.blocks]`, asks for an import. A
file (a spec, a stored configuration) does not: what it names must have been imported already, or be installed under an
entry point of its kind.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Literal

from nas.errors import UserError

Kind = Literal["block", "space", "scorer", "searcher"]
#: Those that a command line chooses; blocks are named in files alone.
CHOSEN: tuple[Kind, ...] = ("space", "scorer", "searcher")


def is_reference(name: str) -> bool:
    """Whether a name has the form `module:attribute`."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def reference_to(value: type | Callable[..., object]) -> str:
    """`module:attribute` of a class or function, as `loaded` and `imported` read it back."""
    return f"{value.__module__}:{value.__qualname__}"


def use(modules: Iterable[str]) -> None:
    """Import the modules that a person names (`use=[my_package.blocks]`), so that files may speak of what they define.

    Raises UserError for one that cannot be imported.
    """
    for module in modules:
        _import(module, f"use=[{module}]")


def imported(reference: str, kind: Kind) -> object:
    """What a person names on the command line or in Python; its module is imported.

    Raises UserError if the module cannot be imported or has no such attribute.
    """
    module, _, attribute = reference.partition(":")
    return _attribute(_import(module, f"{kind}={reference}"), attribute, reference, kind)


def loaded(reference: str, kind: Kind, where: str) -> object:
    """What a file names: from a module that is imported already or installed under an entry point, never otherwise.

    where: the file, for the message. Raises UserError that tells which `use=` would allow it.
    """
    module, _, attribute = reference.partition(":")
    if module not in sys.modules:
        point = next((point for point in installed(kind).values() if point.value == reference), None)
        if point is None:
            raise UserError(f"{where} needs {kind} {reference}: if you trust that package, add use=[{module}]")
        return _load(point, kind)
    if attribute.partition(".")[0] not in vars(sys.modules[module]):  # a module's own __getattr__ could import
        raise UserError(f"{where} needs {kind} {reference}: module {module} has no {attribute}")
    return _attribute(sys.modules[module], attribute, reference, kind)


def installed(kind: str) -> dict[str, EntryPoint]:
    """The entry points `maenas.blocks`, `maenas.spaces`, `maenas.scorers` or `maenas.searchers` by name, not yet loaded."""
    return {point.name: point for point in entry_points(group=f"maenas.{kind}s")}


def found(name: str, kind: Kind) -> object | None:
    """What a person's name stands for outside the package, by reference or by entry point; None if for nothing."""
    if is_reference(name):
        return imported(name, kind)
    point = installed(kind).get(name)
    return None if point is None else _load(point, kind)


def _import(module: str, asked: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and module.startswith(error.name):
            raise UserError(
                f"{asked}: there is no module {error.name}; run in its folder or install its package"
            ) from None
        raise UserError(f"{asked}: importing {module} failed with {type(error).__name__}: {error}") from error


def _load(point: EntryPoint, kind: Kind) -> object:
    module, _, attribute = point.value.partition(":")
    return _attribute(_import(module, f"{kind} {point.name}"), attribute, point.value, kind)


def _attribute(module: ModuleType, attribute: str, reference: str, kind: Kind) -> object:
    value: object = module
    for part in attribute.split("."):
        value = getattr(value, part, None)
    if value is None:
        raise UserError(f"{kind} {reference}: module {module.__name__} has no {attribute}")
    return value
