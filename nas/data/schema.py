"""What the entries of annotation files must be: typed values, or a line that names file, entry and field."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, Strict, TypeAdapter, ValidationError

from nas.data.dataset import Problem
from nas.errors import UserError, shown

T = TypeVar("T")

#: Coordinates beyond it cannot be meant, and their products overflow in float32.
LARGEST = 1e9


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number")
    return value


def _spelled(value: Any) -> Any:
    """Numbers as names, as YAML reads an unquoted 1; yes, no and null are no names."""
    if isinstance(value, bool) or value is None:
        raise ValueError("a name (in quotes, if this is one)")
    return str(value) if isinstance(value, int | float) else value


def _printable(value: str) -> str:
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise ValueError("valid text") from None
    if "\0" in value:
        raise ValueError("text without a zero byte")
    return value


Whole = Annotated[int, Field(ge=-(2**63), lt=2**63), BeforeValidator(_no_truth)]
Coordinate = Annotated[float, Strict(), Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
Area = Annotated[float, Strict(), Field(ge=0, le=LARGEST**2, allow_inf_nan=False)]
Text = Annotated[str, Strict(), Field(min_length=1), AfterValidator(_printable)]
ClassName = Annotated[Text, BeforeValidator(_spelled)]


@dataclass(slots=True)
class CocoCategory:
    """An entry of `categories`."""

    id: Whole
    name: ClassName


@dataclass(slots=True)
class CocoImage:
    """An entry of `images`; a size that is none is read from the picture."""

    id: Whole | Text
    file_name: Text
    width: Any = None
    height: Any = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height, if both are whole numbers of pixels."""
        sides = (self.width, self.height)
        whole = all(isinstance(s, int) and not isinstance(s, bool) and 0 < s <= LARGEST for s in sides)
        return (self.width, self.height) if whole else None


@dataclass(slots=True)
class CocoAnnotation:
    """An entry of `annotations`; without an area it has its box's, run-length masks have no outline."""

    image_id: Whole | Text
    category_id: Whole
    bbox: tuple[Coordinate, Coordinate, Coordinate, Coordinate]
    area: Area | None = None
    iscrowd: bool | None = None
    segmentation: Any = None


CATEGORY, IMAGE = TypeAdapter(CocoCategory), TypeAdapter(CocoImage)
ANNOTATION = TypeAdapter(CocoAnnotation)
OUTLINE: TypeAdapter[list[float]] = TypeAdapter(list[Coordinate])
#: `names` of a YOLO data.yaml.
CLASS_NAME_LIST: TypeAdapter[list[str]] = TypeAdapter(list[ClassName])
CLASS_NAME_MAP: TypeAdapter[dict[int, str]] = TypeAdapter(dict[Whole, ClassName])


def fault(error: ValidationError, place: str = "") -> str:
    """The first thing that is wrong, in one line: place and field, what is expected, and what is there."""
    first = error.errors(include_url=False)[0]
    for part in first["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if str(part).isidentifier() else ""
    if first["type"] == "missing":
        return f"{place} is missing"
    reason = "a map" if first["type"] == "dataclass_type" else first["msg"]
    reason = reason.removeprefix("Value error, ").removeprefix("Input should be ")
    return f"{place} must be {reason[:1].lower()}{reason[1:]}, got {shown(first['input'])}"


def field_of(error: ValidationError) -> str:
    """The field that the first fault lies in."""
    return str(next(iter(error.errors(include_url=False)[0]["loc"]), ""))


def read_entries(
    adapter: TypeAdapter[T], entries: Sequence[object], key: str, path: str | Path
) -> tuple[list[tuple[int, T]], list[Problem]]:
    """The usable entries of a list with their positions, and the others as problems."""
    read: list[tuple[int, T]] = []
    problems: list[Problem] = []
    for position, entry in enumerate(entries):
        try:
            read.append((position, adapter.validate_python(entry)))
        except ValidationError as error:
            kind = "annotation without a box" if field_of(error) == "bbox" else f"unusable entry of `{key}`"
            problems.append(Problem(kind, f"{path} {fault(error, f'{key}[{position}]')}"))
    return read, problems


def require_names(names: Iterable[str], where: object) -> list[str]:
    """A list of class names; UserError naming the file if it is empty or names a class twice."""
    names = list(names)
    if not names:
        raise UserError(f"{where}: no classes; list them even if no image has boxes")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{where}: two classes are called {name!r}; rename one")
        seen.add(name)
    return names
