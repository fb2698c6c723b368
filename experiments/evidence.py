"""Results of single commands, kept with machine, date and commit beside the command that made them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.files import read_json, write_atomic
from nas.measure import cpu_facts


def save_result(path: Path, case: str, numbers: Mapping[str, Any]) -> Path:
    """Write the numbers of one case into a JSON file, beside those of its other cases."""
    known = read_json(path) if path.is_file() else {}
    known[case] = dict(numbers) | {"machine": cpu_facts()}
    return write_atomic(path, json.dumps(known, indent=1, sort_keys=True) + "\n")
