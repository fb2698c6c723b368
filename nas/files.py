"""YAML and JSON in and out: safe to read, atomic to write, one clear line for whatever is wrong."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict, Unpack

import yaml
from filelock import FileLock, Timeout

from nas.errors import SpecError, UserError
from nas.spec import Spec, digest, from_dict, to_dict

FORMAT = "maenas-spec/1"
#: Bytes of a text (COCO's own file has 450 MB) and of a YAML file; values and depth of the latter.
MOST_TEXT, MOST_YAML, MOST_VALUES, DEEPEST = 2 << 30, 4 << 20, 1_000_000, 100
#: How the names of files end that are being written.
UNFINISHED = ".unfinished"
_KEYS = ("format", "name", "digest", "description", "breaks", "provenance", "metrics", "spec")


def config_folder() -> str:
    """The folder of the YAML files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if folder.is_dir():
            return str(folder)
    raise UserError("the folder conf/ is missing; reinstall maenas")


def write_atomic(path: str | Path, content: str | bytes) -> Path:
    """Write a file so that a reader, or a crash, never sees half of it; raises UserError if the folder refuses.

    File and folder are on the disk when this returns; the permissions are those that the umask leaves.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def _sync_folder(folder: Path) -> None:
    """Put the names of a folder on the disk, where the system knows how to."""
    if os.name == "nt":  # folders cannot be opened there; NTFS keeps a journal of names
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks
            raise
    finally:
        os.close(number)


@contextmanager
def claimed(folder: str | Path) -> Iterator[None]:
    """The folder as this process's own while the context lasts; it is made if need be, and may be claimed again inside.

    What a killed process left half-written in it is swept away. Raises UserError if another process works there: its
    claim ends with it, however it ends.
    """
    folder = Path(folder)
    lock = FileLock(folder / ".claim.lock", timeout=0, is_singleton=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(f"another command is at work in {folder}: wait for its end, or choose another folder") from None
    except OSError as error:
        raise UserError(f"cannot work in {folder}: {error.strerror or error}") from None
    try:
        for left in folder.glob(f".*{UNFINISHED}"):
            with suppress(OSError):
                left.unlink()
        yield
    finally:
        lock.release()


def read_text(path: str | Path, most: int = MOST_TEXT) -> str:
    """The text of a file of at most so many bytes, or UserError naming it."""
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(most + 1)
        if len(data) > most:
            raise UserError(f"{path} is refused: it has more than {most >> 20} MiB, which no such file needs")
        return data.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file") from None
    except (OSError, ValueError) as error:  # a name with a zero byte
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def read_yaml(path: str | Path) -> object:
    """The plain data of a YAML file of at most 4 MiB; nothing in it is executed.

    Raises UserError for what is no YAML, nested deeper than a hundred times, or grows to a million values by its aliases.
    """
    try:
        loader = yaml.SafeLoader(read_text(path, MOST_YAML))
        try:
            node = loader.get_single_node()
            _require_small(node, path)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where is not None else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{path} is not valid YAML{line}: {reason}") from None


def _require_small(root: yaml.Node | None, path: str | Path) -> None:
    """UserError for a document that its aliases make large or endless."""
    waiting, count = [(root, 0)] if root is not None else [], 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if depth > DEEPEST or count > MOST_VALUES:
            raise UserError(f"{path} is refused: it is nested more than {DEEPEST} times or has {MOST_VALUES:,} values")
        if isinstance(node, yaml.SequenceNode):
            waiting += [(inner, depth + 1) for inner in node.value]
        elif isinstance(node, yaml.MappingNode):
            waiting += [(inner, depth + 1) for pair in node.value for inner in pair]


def read_json(path: str | Path) -> object:
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


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by the names in its first line; none where there is no file. Raises UserError as `read_text`."""
    return list(csv.DictReader(read_text(path).splitlines())) if path.exists() else []


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows, the header first, as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def dump_yaml(data: object) -> str:
    """Deterministic YAML: keys in the given order, short lists on one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


class Known(TypedDict, total=False):
    """What a spec file says beside the architecture."""

    name: str
    description: str
    breaks: str
    provenance: Mapping[str, object]
    metrics: Mapping[str, object]


def spec_document(spec: Spec, **known: Unpack[Known]) -> dict[str, object]:
    """What a spec file holds: the architecture, its digest, and what is known of it."""
    document: dict[str, object] = {
        "format": FORMAT,
        "name": known.get("name"),
        "description": known.get("description"),
        "breaks": known.get("breaks"),
        "digest": digest(spec),
        "provenance": dict(known.get("provenance", {})),
        "metrics": dict(known.get("metrics", {})),
    }
    return {key: value for key, value in document.items() if value} | {"spec": to_dict(spec)}


def save_spec(path: str | Path, spec: Spec, **known: Unpack[Known]) -> Path:
    """Write a spec file."""
    return write_atomic(path, dump_yaml(spec_document(spec, **known)))


def is_spec_file(name: str | Path) -> bool:
    """Whether a name is that of a file of specs: best.yaml, or line 3 of a front, front.jsonl:3."""
    return bool(re.search(r"\.(ya?ml|jsonl(:\d+)?)$", str(name)))


def read_spec_document(path: str | Path) -> tuple[Spec, dict[str, object]]:
    """The spec of a file, or of a line of one (front.jsonl:3), and everything else that the file says of it.

    Raises SpecError, in one line, for an unknown key or format, an invalid architecture, or a digest that does not
    belong to it (a damaged file, or one edited by hand: then delete its `digest` line).
    """
    document = _line_of(str(path)) if ".jsonl" in str(path) else read_yaml(path)
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


def _line_of(name: str) -> Any:
    """The document in a line of a file: `front.jsonl:3`, counted from 1."""
    path, _, number = name.rpartition(":")
    if not number.isdigit():
        raise UserError(f"{name} holds many networks: say which line, as in {name}:1 for the best")
    lines = read_text(path).splitlines()
    if len(number) > 9 or not 1 <= int(number) <= len(lines):
        raise UserError(f"{path} has {len(lines)} networks, there is no line {number}")
    try:
        return json.loads(lines[int(number) - 1])
    except (ValueError, RecursionError):
        raise UserError(f"{path}, line {number} is damaged: it is no JSON") from None


def load_spec(path: str | Path) -> Spec:
    """The architecture of a spec file, or of a line of a front."""
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
