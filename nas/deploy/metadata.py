"""What an exported file says of itself, the same words in every format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nas.errors import UserError

FORMAT = "maenas-export/1"
#: The key under which files carry it.
KEY = "maenas"


@dataclass(frozen=True)
class Metadata:
    """classes; side of the square input; whether rows are final (no NMS to follow); whether NMS is in the file.

    Inputs are RGB, 0..255, (B, 3, S, S). With NMS inside the outputs are `scores` (B, K), `boxes` (B, K, 4) and
    `labels` (B, K), best first, padded with score 0 and label -1; otherwise `scores` (B, N, C) and `boxes` (B, N, 4).
    """

    classes: tuple[str, ...]
    image_size: int
    end_to_end: bool = False
    nms: bool = False
    precision: str = "fp32"

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)})


def read_metadata(text: str | None, path: object) -> Metadata:
    """The metadata in a file's text; raises UserError naming the file if it has none, or one of another version."""
    try:
        data: Any = json.loads(text or "")
    except ValueError:
        data = None
    if not isinstance(data, Mapping):
        raise UserError(f"{path} does not say its classes and input size: it was not made by python -m nas.export")
    if data.get("format") != FORMAT:
        raise UserError(f"{path}: format is {data.get('format')!r}, this version reads {FORMAT!r}")
    try:
        names = tuple(str(name) for name in data["classes"])
        return Metadata(
            names, int(data["image_size"]), bool(data["end_to_end"]), bool(data["nms"]), str(data["precision"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: its metadata is damaged ({error})") from None
