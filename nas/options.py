"""Options checked by their annotations: type, range and choices stand once, where an option is declared.

    population: Annotated[int, Ge(2)] = 512    ->    searcher.population must be a whole number of at least 2, got 2.5

Ranges are those of annotated_types (Ge, Gt, Le, Lt, MultipleOf, MinLen); OneOf and Rule say what they cannot. Values are
read strictly: true is no number, 2.0 no whole number, "2" neither; but lists become tuples, whole numbers floats where
floats stand, and scalars of numpy plain numbers. No number may be NaN, and none infinite but under ENDLESS.

`check_fields` takes the values of a dataclass (nested ones too), `read_object` makes one of them, `check_object` takes one
that was made already, `check_keywords` the keywords of a function, `check_value` one value. All raise UserError in one line
that names the option, what is allowed and what was given. pydantic does the reading; it is imported when something is checked.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf

from nas.errors import UserError, shown

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema

Made = TypeVar("Made")
#: The most that a count may be; arrays of 32-bit numbers hold it.
MOST = 10**9


@dataclass(frozen=True)
class Rule:
    """A condition in words ("a multiple of its step") and its test, for an annotation."""

    text: str
    test: Callable[[Any], bool]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._kept, handler(source))

    def _kept(self, value: Any) -> Any:
        if not self.test(value):
            raise ValueError(self.text)
        return value


class OneOf(Rule):
    """One of some words: a Literal for dataclasses that Hydra reads, which knows none."""

    def __init__(self, *words: str) -> None:
        super().__init__(f"one of {', '.join(words)}", words.__contains__)


class Endless:
    """Lets a float be infinite."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        number = core_schema.float_schema(strict=True, allow_inf_nan=True)
        return core_schema.no_info_after_validator_function(_no_nan, number)


ENDLESS = Endless()


def _no_nan(value: float) -> float:
    if value != value:
        raise ValueError("not a number")
    return value


Count = Annotated[int, Ge(1), Le(MOST)]
"""How many: 1, 2, ..."""
CountOrNone = Annotated[int, Ge(0), Le(MOST)]
"""How many, 0 for none."""
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
"""A part of a whole, from none to all."""
Pixels = Annotated[int, Ge(1), Le(8192)]
LARGEST_STRIDE = 32
"""What divides the sides of a detector's input."""
ImageSize = Annotated[int, Ge(LARGEST_STRIDE), Le(8192), MultipleOf(LARGEST_STRIDE)]
"""Side of a detector's square input in pixels, which its strides must divide."""
Resize = Literal["stretch", "letterbox", "rectangle"]
"""How a picture becomes a detector's input: stretched to the square, whole with grey beside it, or so in training and on
rectangles with little grey where the network can take them (nas.data.resize)."""
Name = Annotated[str, MinLen(1)]
Threads = Annotated[int, Ge(1), Le(1024)]
Workers = Annotated[int, Ge(0), Le(1024)]
"""Processes that prepare batches; 0: none but the caller's."""
Width = Annotated[int, Ge(1), Le(65_536)]
"""Channels of a map."""
Kernel = Annotated[int, Ge(1), Le(31), Rule("odd", lambda kernel: kernel % 2 == 1)]
LOWEST_FIRST = Rule("lowest first", lambda pair: pair[0] <= pair[1])
DISTINCT = Rule("all different", lambda entries: len(set(entries)) == len(entries))


def in_squares(resize: Resize) -> Resize:
    """What `resize` is where every input is a square."""
    return "letterbox" if resize == "rectangle" else resize


def check_value(name: str, value: object, annotation: type[Made]) -> Made:
    """`value` in the annotated type; UserError that names `name` (and the entry of a list) for anything else."""
    from pydantic import ValidationError

    value = _plain(value)
    inner = _dataclass_in(annotation)
    if inner is not None:
        made: Made = _check_inner(name, value, annotation, inner)
        return made
    try:
        adapter: TypeAdapter[Made] = _adapter(annotation)  # type: ignore[arg-type]
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = _entry(first["loc"], value, annotation)
    except UnicodeEncodeError:  # such text where a Literal stands
        where = (), value, annotation
    loc, given, wanted = where
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    raise UserError(f"{name}{place} must be {describe(wanted)}, got {shown(given)}")


def check_fields(
    kind: type, values: Mapping[str, object], where: str = "", given: Collection[str] = ()
) -> dict[str, object]:
    """`values` in the types of the fields of the dataclass `kind`, by name; those left out stay out.

    where: what comes before the names in messages (`trainer`, or `plan.json:`); given: fields that are not the user's.
    """
    hints = {item.name: _hints(kind)[item.name] for item in dataclasses.fields(kind) if item.name not in given}
    return _checked(values, hints, where, where.removesuffix(":"))


def read_object(kind: type[Made], data: object, where: str = "") -> Made:
    """An object of the dataclass `kind` from plain data, such as a file holds.

    where: as of `check_fields`. Raises UserError for a field that is unknown, lacking, or refused by its annotation.
    """
    owner = where.removesuffix(":") or "this command"
    if not isinstance(data, Mapping):
        raise UserError(f"{owner} must be a mapping with {', '.join(_hints(cast(Any, kind)))}, got {shown(data)}")
    values = check_fields(kind, data, where)
    if lacking := lacking_fields(kind, values):
        raise UserError(f"{owner} lacks {', '.join(lacking)}")
    return kind(**values)


def lacking_fields(kind: type, values: Collection[str]) -> list[str]:
    """Names of the fields of a dataclass that have no default and are not among `values`."""
    missing = dataclasses.MISSING
    needed = [item.name for item in dataclasses.fields(kind) if item.default is item.default_factory is missing]
    return [name for name in needed if name not in values]


def check_object(value: object, where: str = "") -> None:
    """Raise UserError for the first field of a dataclass instance, nested ones too, that its annotation refuses."""
    check_fields(
        type(value), {item.name: getattr(value, item.name) for item in dataclasses.fields(cast(Any, value))}, where
    )


def check_keywords(
    function: Callable[..., object],
    values: Mapping[str, object],
    where: str,
    given: Collection[str] = (),
    owner: str = "",
) -> dict[str, object]:
    """`values` in the types of the keywords of `function`; given: parameters that are not the user's.

    owner: what an unknown keyword is said to be none of ("searcher evolution").
    """
    hints = {key: hint for key, hint in _keywords(function).items() if key not in given}
    return _checked(values, hints, where, owner or where)


def unknown(owner: str, key: object, known: Collection[str]) -> UserError:
    """The error for an option that does not exist: the nearest name, and all that there are."""
    near = difflib.get_close_matches(str(key), known, 1, 0.7)
    hint = f"did you mean {near[0]}? It" if near else "it"
    return UserError(f"{owner or 'this command'} has no option {shown(key)}; {hint} has {', '.join(known) or 'none'}")


def describe(annotation: object) -> str:
    """What an annotation allows, in words."""
    base, metadata = _parts(annotation)
    rules = [item.text for item in metadata if isinstance(item, Rule)]
    if rules and base is str:
        return rules[0]
    text = _base_text(base)
    if any(isinstance(item, MinLen) for item in metadata):
        least = max(item.min_length for item in metadata if isinstance(item, MinLen))
        text = "text that is not empty" if base is str else text.replace("a list", f"a list of at least {least}", 1)
    text += "".join(f", at most {item.max_length}" for item in metadata if isinstance(item, MaxLen))
    text += _range(metadata)
    return ", ".join([text, *rules])


# ---------------------------------------------------------------------- inside


def _checked(values: Mapping[str, object], hints: Mapping[str, Any], where: str, owner: str) -> dict[str, object]:
    prefix = f"{where} " if where.endswith(":") else f"{where}." if where else ""
    for key in values:
        if key not in hints:
            raise unknown(owner, key, list(hints))
    return {key: check_value(f"{prefix}{key}", value, hints[key]) for key, value in values.items()}


def _check_inner(name: str, value: Any, annotation: Any, inner: Any) -> Any:
    """A dataclass, alone, optional or in a list, given as an object or as a mapping."""
    if value is None and type(None) in get_args(annotation):
        return None
    several = get_origin(annotation) in (list, tuple)
    if several and isinstance(value, list | tuple):
        return get_origin(annotation)(check_value(f"{name}[{index}]", item, inner) for index, item in enumerate(value))
    if isinstance(value, inner):
        check_object(value, name)
        return value
    if isinstance(value, Mapping) and not several:
        return read_object(inner, value, name)
    wanted = "a list of mappings" if several else "a mapping"
    raise UserError(f"{name} must be {wanted} with {', '.join(_hints(inner))}, got {shown(value)}")


def _dataclass_in(annotation: Any) -> Any:
    """The dataclass that an annotation is, or is optional or a list of."""
    if dataclasses.is_dataclass(annotation):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, list, tuple):
        return next((part for part in get_args(annotation) if dataclasses.is_dataclass(part)), None)
    return None


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


@cache
def _keywords(function: Callable[..., object]) -> dict[str, Any]:
    made = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    hints = typing.get_type_hints(made, include_extras=True)
    return {key: hints.get(key, Any) for key in inspect.signature(function).parameters}


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    config = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    return TypeAdapter(_lenient(annotation), config=config)


def _lenient(annotation: Any) -> Any:
    """The annotation with tuples that take lists, and paths that take text; all else stays strict."""
    from pydantic import Strict

    base, metadata = _parts(annotation)
    origin, arguments = get_origin(base), get_args(base)
    if origin in (Union, types.UnionType):
        base = Union[tuple(_lenient(part) for part in arguments)]
    elif origin is Sequence:
        base = _lenient(tuple[arguments[0], ...])  # type: ignore[valid-type]
    elif origin in (tuple, list, dict):
        parts = tuple(part if part is Ellipsis else _lenient(part) for part in arguments)
        base = Annotated[origin[parts], Strict(origin is not tuple)]
    elif base is Path:
        base = Annotated[Path, Strict(False)]
    elif base is str:
        base = Annotated[str, Rule("text that a file can hold", _encodes)]
    return Annotated[(base, *metadata)] if metadata else base


def _plain(value: Any) -> Any:
    """Scalars of numpy as plain numbers, inside lists and mappings too."""
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)([_plain(item) for item in value])
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        return value.item()
    return value


def _encodes(text: str) -> bool:
    """Whether a text is whole characters: bytes of the command line that are no UTF-8 arrive as halves of pairs."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _parts(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[0], annotation.__metadata__
    return annotation, ()


def _entry(loc: tuple[int | str, ...], value: Any, annotation: Any) -> tuple[tuple[int | str, ...], Any, Any]:
    """The entry at fault as far as it can be followed into lists and mappings, what stands there and what may."""
    followed: tuple[int | str, ...] = ()
    for part in loc:
        base, _ = _parts(annotation)
        if get_origin(base) in (Union, types.UnionType):
            inner = [option for option in get_args(base) if option is not type(None)]
            if len(inner) != 1:
                break
            base, _ = _parts(inner[0])
        arguments = get_args(base)
        if get_origin(base) in (list, tuple, Sequence) and isinstance(part, int) and part < len(value):
            last = len(arguments) == 1 or arguments[-1] is Ellipsis
            if not last and part >= len(arguments):
                break
            annotation, value = arguments[0 if last else part], value[part]
        elif get_origin(base) is dict and isinstance(value, Mapping) and part in value:
            annotation, value = arguments[1], value[part]
        else:
            break
        followed += (part,)
    return followed, value, annotation


def _base_text(base: Any) -> str:
    origin, arguments = get_origin(base), get_args(base)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if part is type(None) else describe(part) for part in arguments)
    if origin is Literal:
        return f"one of {', '.join(str(word) for word in arguments)}"
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)}, each {describe(arguments[0])}"
    if origin in (tuple, list, Sequence):
        return f"a list, each entry {describe(arguments[0])}"
    if origin is dict:
        return "a mapping" if arguments[1] is Any else f"a mapping, each value {describe(arguments[1])}"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path"}
    return words.get(base, getattr(base, "__name__", str(base)))


def _range(metadata: tuple[Any, ...]) -> str:
    """The bounds of a number in words."""
    bounds: dict[type, Any] = {}
    for item in metadata:
        for kind, name in ((Ge, "ge"), (Gt, "gt"), (Le, "le"), (Lt, "lt"), (MultipleOf, "multiple_of")):
            if isinstance(item, kind):
                bounds[kind] = getattr(item, name)
    text = {kind: f"{bound:,}" if isinstance(bound, int) else f"{bound:g}" for kind, bound in bounds.items()}
    words = [f"from {text.pop(Ge)} to {text.pop(Le)}"] if Ge in text and Le in text else []
    for kind, phrase in ((Ge, "of at least"), (Gt, "above"), (Le, "of at most"), (Lt, "below")):
        if kind in text:
            words.append(f"{phrase} {text[kind]}")
    if MultipleOf in text:
        words.append(f"a multiple of {text[MultipleOf]}")
    return f" {', '.join(words)}" if words else ""
