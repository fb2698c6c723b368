"""Tables of records as compressed JSON lines: the same records always give the same bytes."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nas.errors import UserError
from nas.files import write_atomic


def write_packed(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write the records in the given order, atomically."""
    text = "".join(json.dumps(row, sort_keys=True, separators=(",", ":")) + "\n" for row in rows)
    return write_atomic(path, gzip.compress(text.encode(), mtime=0))


def read_packed(path: Path) -> list[dict[str, Any]]:
    """The records of a file, none if it does not exist; UserError if it is damaged."""
    try:
        text = gzip.decompress(path.read_bytes()).decode()
        return [json.loads(line) for line in text.splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(f"{path} is not a packed table: {error}") from None
