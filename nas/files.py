"""YAML and JSON in and out: safe to read, atomic to write, one clear line for whatever is wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nas.errors import SpecError, UserError
from nas.spec import Spec, digest, from_dict, to_dict

FORMAT = "maenas-spec/1"
_KEYS = ("format", "name", "digest", "description", "breaks", "provenance", "metrics", "spec")


def config_folder() -> str:
    """The folder of the YAML files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if folder.is_dir():
            return str(folder)
    raise UserError("the folder conf/ is missing; reinstall maenas")


def write_atomic(path: str | Path, content: str | bytes) -> Path:
    """Write a file so that a reader, or a crash, never sees half of it; raises UserError if the folder refuses."""
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def read_text(path: str | Path) -> str:
    """The text of a file, or UserError naming it."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def read_yaml(path: str | Path) -> Any:
    """The plain data of a YAML file; nothing in it is executed."""
    try:
        return yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where is not None else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{path} is not valid YAML{line}: {reason}") from None


def read_json(path: str | Path) -> Any:
    """The data of a JSON file, or UserError naming it."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON at line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or thousands of brackets
        raise UserError(f"{path} is not JSON that can be read: {str(error).split(';')[0]}") from None


def write_json(path: str | Path, data: object) -> Path:
    """Write plain data as JSON, one entry a line, atomically."""
    return write_atomic(path, json.dumps(data, indent=1) + "\n")


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows, the header first, as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def dump_yaml(data: object) -> str:
    """Deterministic YAML: keys in the given order, short lists on one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def spec_document(
    spec: Spec,
    name: str = "",
    description: str = "",
    metrics: Mapping[str, object] | None = None,
    provenance: Mapping[str, object] | None = None,
    breaks: str = "",
) -> dict[str, Any]:
    """What a spec file holds: the architecture, its digest, and what is known of it."""
    document = {
        "format": FORMAT,
        "name": name,
        "description": description,
        "breaks": breaks,
        "digest": digest(spec),
        "provenance": dict(provenance or {}),
        "metrics": dict(metrics or {}),
    }
    return {key: value for key, value in document.items() if value} | {"spec": to_dict(spec)}


def save_spec(path: str | Path, spec: Spec, **known: Any) -> Path:
    """Write a spec file (`spec_document` names the keywords)."""
    return write_atomic(path, dump_yaml(spec_document(spec, **known)))


def read_spec_document(path: str | Path) -> tuple[Spec, dict[str, Any]]:
    """The spec of a file and everything else that the file says of it.

    Raises SpecError, in one line, for an unknown key or format, an invalid architecture, or a digest that does not
    belong to it (a damaged file, or one edited by hand: then delete its `digest` line).
    """
    document = read_yaml(path)
    if not isinstance(document, dict) or "spec" not in document:
        raise SpecError(f"{path} holds no architecture: a spec file has the keys `format` and `spec`")
    for key in document:
        if key not in _KEYS:
            raise SpecError(f"{path}: unknown key {key!r}; known: {', '.join(_KEYS)}")
    if document.get("format") != FORMAT:
        raise SpecError(f"{path}: format is {document.get('format')!r}, this version reads {FORMAT!r}")
    try:
        spec = from_dict(document["spec"])
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None
    if "digest" in document and document["digest"] != digest(spec):
        raise SpecError(
            f"{path}: the digest does not belong to this architecture; the file is damaged, or was edited by hand "
            "(then delete its digest line)"
        )
    return spec, {key: value for key, value in document.items() if key != "spec"}


def load_spec(path: str | Path) -> Spec:
    """The architecture of a spec file."""
    return read_spec_document(path)[0]


class _Dumper(yaml.SafeDumper):
    """Lists of plain values in one line, one block of a network a line."""


def _mapping(dumper: _Dumper, data: dict[str, Any]) -> yaml.Node:
    flat = "type" in data or (bool(data) and {"kind", "out", "kernel", "stride"} == set(data))
    return dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=flat)


def _sequence(dumper: _Dumper, data: list[Any]) -> yaml.Node:
    flat = all(not isinstance(item, dict | list) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


_Dumper.add_representer(dict, _mapping)
_Dumper.add_representer(list, _sequence)
