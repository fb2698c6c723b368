"""Networks that were trained, as a table of JSON lines tells of them: what the learned score is fitted to."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le

from nas.errors import UserError
from nas.options import CountOrNone, Name, Positive, check_fields
from nas.spec import Spec, from_dict


@dataclass(frozen=True)
class Trained:
    """One trained network: its AP in [0, 1] on a data set, the band of its budget where the table has any, and its seed."""

    spec: Spec
    ap: Annotated[float, Ge(0), Le(1)]
    data: Name
    band_ms: Positive | None = None
    seed: CountOrNone = 0


def read_table(path: Path) -> list[Trained]:
    """The rows of a table of JSON lines, plain or packed: `spec`, `test_ap` or `ap`, `data`, and `band_ms`, `seed`.

    Other fields are passed over. Raises UserError that names the line for whatever cannot be used.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        lines = content.decode().splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"table={path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_row(json.loads(line)))
        except (ValueError, RecursionError, UserError) as error:
            raise UserError(f"table={path}, line {number}: {str(error).splitlines()[0]}") from None
    return rows


def _row(row: Any) -> Trained:
    if not isinstance(row, dict):
        raise UserError("not a mapping")
    ap = "test_ap" if "test_ap" in row else "ap"
    for name in ("spec", ap, "data"):
        if name not in row:
            raise UserError(f"there is no {'test_ap or ap' if name == 'ap' else name}")
    values = {name: row[name] for name in ("data", "band_ms", "seed") if name in row} | {"ap": row[ap]}
    checked: dict[str, Any] = check_fields(Trained, values, given=("spec",))
    return Trained(spec=from_dict(row["spec"]), **checked)
