"""Reads the structure lists of the official TinyNAS and DAMO-YOLO releases; nothing in them is executed."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.errors import SpecError
from nas.files import read_text
from nas.spec import Backbone, Block, Plain, Residual, Stem

#: Official class names, in the TinyNAS and in the DAMO-YOLO spelling.
CLASSES = {
    "SuperResK1KX": "k1kx",
    "SuperResConvK1KX": "k1kx",
    "SuperResKXKX": "kxkx",
    "SuperResConvKXKX": "kxkx",
    "SuperResK1KXK1": "k1kxk1",
    "SuperResConvK1KXK1": "k1kxk1",
    "SuperResK1DWK1": "k1dwk1",
    "SuperResK1DWSEK1": "k1dwsek1",
}
CONVOLUTION = "ConvKXBNRELU"
#: Keys that say nothing of a float network's shape.
_IGNORED = {"nbitsA", "nbitsW", "inner_class", "p", "act"}


def from_official(structure: Sequence[Mapping[str, Any]] | str | Path, focus: bool | None = None) -> Backbone:
    """The backbone of an official structure: a list of block records, or the path of a JSON or Python-literal file.

    A stem that reads 12 channels, or `focus=True` (DAMO-YOLO's files say 3 and add Focus on loading), becomes a Focus
    stem. Shortcuts are TinyNAS's (pooled and projected); `deployed` makes DAMO-YOLO's form of it. ReLU, or SiLU where
    blocks squeeze and excite.
    Raises SpecError naming the block for an unknown class, an `in` that contradicts the block before, missing or
    unusable values, and anything that only quantised or video networks have.
    """
    where = str(structure) if isinstance(structure, str | Path) else "structure"
    if isinstance(structure, str | Path):
        structure = _blocks_of(_parse(read_text(structure), where), where)
    records = _blocks_of(structure, where)
    stem = _stem(records[0], focus, where)
    blocks: list[Block] = []
    channels = stem.out
    for index, record in enumerate(records[1:], start=1):
        block = _block(record, f"{where}: block {index}")
        if _number(record, "in", f"{where}: block {index}") != channels:
            raise SpecError(
                f"{where}: block {index} reads {record['in']} channels, but block {index - 1} writes {channels}"
            )
        blocks.append(block)
        channels = block.out
    squeeze = any(isinstance(block, Residual) and block.kind == "k1dwsek1" for block in blocks)
    return Backbone(stem, tuple(blocks), _out_blocks(blocks), activation="silu" if squeeze else "relu")


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise SpecError(f"{where} is neither JSON nor a Python literal of block records") from None


def _blocks_of(data: Any, where: str) -> list[Mapping[str, Any]]:
    """The list of block records in a file's data, also inside the official result dictionary."""
    if isinstance(data, Mapping):
        for key in ("best_structures", "structure"):
            if key in data:
                return _blocks_of(data[key], where)
    while isinstance(data, Sequence) and len(data) == 1 and isinstance(data[0], Sequence) and not isinstance(data, str):
        data = data[0]
    if not isinstance(data, Sequence) or isinstance(data, str) or len(data) < 2:
        raise SpecError(f"{where} holds no structure: expected a list of a stem and at least one block")
    for index, record in enumerate(data):
        if not isinstance(record, Mapping) or "class" not in record:
            raise SpecError(f"{where}: block {index} must be a record with a class, got {record!r}")
    return list(data)


def _number(record: Mapping[str, Any], key: str, where: str) -> int:
    if key not in record:
        raise SpecError(f"{where} lacks {key!r}")
    value = record[key]
    if type(value) is not int:
        raise SpecError(f"{where}: {key} must be a whole number, got {value!r}")
    return value


def _known(record: Mapping[str, Any], keys: set[str], where: str) -> None:
    for key in record:
        if key not in keys | _IGNORED | {"class", "in", "out", "s", "k", "g"}:
            raise SpecError(f"{where}: unknown key {key!r}")
    if record.get("g", 1) != 1:
        raise SpecError(f"{where}: grouped convolutions are not supported")


def _stem(record: Mapping[str, Any], focus: bool | None, where: str) -> Stem:
    where = f"{where}: block 0"
    if record["class"] != CONVOLUTION:
        raise SpecError(f"{where} must be a {CONVOLUTION} stem, got {record['class']!r}")
    _known(record, set(), where)
    channels, stride = _number(record, "in", where), _number(record, "s", where)
    out, kernel = _number(record, "out", where), _number(record, "k", where)
    if channels not in (3, 12):
        raise SpecError(f"{where} must read 3 channels (an image) or 12 (after Focus), got {channels}")
    if channels == 3 and not focus:
        return Stem("conv", out, kernel, stride)
    if stride != 1:
        raise SpecError(f"{where} has stride {stride}; after Focus it must be 1")
    return Stem("focus", out, kernel)


def _block(record: Mapping[str, Any], where: str) -> Block:
    name = record["class"]
    kind = CLASSES.get(name)
    if kind is None and name != CONVOLUTION:
        raise SpecError(f"{where} has unknown class {name!r}; known: {', '.join([CONVOLUTION, *CLASSES])}")
    _known(record, {"L", "btn"} if kind else set(), where)
    out, stride, kernel = (_number(record, key, where) for key in ("out", "s", "k"))
    try:
        if kind is None:
            return Plain(out, kernel, stride)
        middle, depth = _number(record, "btn", where), _number(record, "L", where)
        return Residual(kind, out, middle, depth, stride, kernel, "pooled")  # type: ignore[arg-type]
    except SpecError as error:
        raise error if str(error).startswith(where) else SpecError(f"{where}: {error}") from None


def _out_blocks(blocks: list[Block]) -> tuple[int, ...]:
    """The last block of each of the three coarsest resolutions (fewer if the net has fewer)."""
    last: dict[int, int] = {}
    level = 0
    for index, block in enumerate(blocks):
        level += block.stride == 2
        last[level] = index
    return tuple(last.values())[-3:]
