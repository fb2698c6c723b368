"""Records in JSON and YAML: results of single commands, with machine, date and commit beside them, and what files tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.errors import UserError
from nas.files import read_json, read_yaml, write_atomic
from nas.measure import cpu_facts


def save_result(path: Path, case: str, numbers: Mapping[str, Any]) -> Path:
    """Write the numbers of one case into a JSON file, beside those of its other cases."""
    known = read_record(path) if path.is_file() else {}
    known[case] = dict(numbers) | {"machine": cpu_facts()}
    return write_atomic(path, json.dumps(known, indent=1, sort_keys=True) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """The entries of a JSON or YAML file; UserError if it holds anything else."""
    data = read_json(path) if path.suffix == ".json" else read_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path} holds no entries by name")
    return data
