"""The tables of experiments as data: each folder's table.yaml, its rows, and the detector of each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.evidence import read_record
from nas.api import load
from nas.errors import UserError
from nas.files import load_spec
from nas.spec import Backbone, DetectorSpec, from_dict, to_dict

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: a detector, how it is trained, and what the source prints.

    changes: dotted fields of the spec, such as neck.depth; training: dotted settings of the training, such as
    trainer.loss.assigner, distill.kind or augmentation.shear; at: more of them for single scales, by name; teacher: the
    row whose finished checkpoint teaches this one; ambiguous: why the published costs cannot be expected to come out
    (empty where they must).
    """

    name: str
    model: str
    backbone: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    at: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    teacher: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    ambiguous: str = ""

    @property
    def key(self) -> str:
        """The row's name as part of a path."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.name.lower()).strip("-")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the report, or one of our own claims."""

    name: str
    title: str
    source: str
    reading: str
    rows: tuple[Row, ...]

    def row(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise UserError(f"experiment {self.name} has no row {name!r}; it has {', '.join(r.name for r in self.rows)}")


def table_names() -> tuple[str, ...]:
    """Folders that hold a table."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob("*/table.yaml")))


def load_table(name: str) -> Table:
    """The table of a folder; raises UserError naming an unknown folder, key or row."""
    path = FOLDER / name / "table.yaml"
    if not path.is_file():
        raise UserError(f"no experiment {name!r}; there are {', '.join(table_names())}")
    data = read_record(path)
    known = {"title", "source", "reading", "model", "rows"}
    if set(data) - known:
        raise UserError(f"{path}: unknown keys {', '.join(sorted(set(data) - known))}")
    rows = []
    for item in data["rows"]:
        unknown = set(item) - set(Row.__dataclass_fields__)
        if unknown or "name" not in item:
            raise UserError(f"{path}: a row has unknown or missing keys: {', '.join(sorted(unknown)) or 'name'}")
        rows.append(Row(**({"model": data.get("model", "")} | item)))
    table = Table(name, data["title"], data["source"], data.get("reading", ""), tuple(rows))
    for row in rows:
        if row.teacher:
            table.row(row.teacher)
    return table


def detector_of(table: Table, row: Row) -> DetectorSpec:
    """The detector that a row describes."""
    spec = load(row.model)
    if not isinstance(spec, DetectorSpec):
        raise UserError(f"{table.name}, row {row.name!r}: {row.model} is not a whole detector")
    data: dict[str, Any] = to_dict(spec)
    if row.backbone:
        backbone = load_spec(FOLDER / table.name / row.backbone)
        if not isinstance(backbone, Backbone):
            raise UserError(f"{row.backbone} of {table.name} is not a backbone")
        data["backbone"] = to_dict(backbone)
    for path, value in row.changes.items():
        place, *inner = path.split(".")
        target: dict[str, Any] = data
        for key in inner:
            target, place = target.get(place, {}), key
        if place not in target:
            raise UserError(f"{table.name}, row {row.name!r}: the spec has no field {path}")
        target[place] = value
    result = from_dict(data)
    assert isinstance(result, DetectorSpec)
    return result


def narrowed(spec: DetectorSpec, factor: float, image_size: int) -> DetectorSpec:
    """The same structure with every width multiplied by `factor` (multiples of 8), at another image size.

    The smoke scale of the experiments: shapes stay, costs fall by about factor squared.
    """

    def narrow(width: int) -> int:
        return max(8, 8 * round(width * factor / 8))

    data: dict[str, Any] = to_dict(spec)
    data["image_size"] = image_size
    data["backbone"]["stem"]["out"] = narrow(spec.backbone.stem.out)
    for block in data["backbone"]["blocks"]:
        for key in ("out", "bottleneck", "hidden", "entry", "inner"):
            if key in block:
                block[key] = narrow(block[key])
    data["neck"]["out"] = [narrow(width) for width in spec.neck.out]
    result = from_dict(data)
    assert isinstance(result, DetectorSpec)
    return result
