"""The official TinyNAS and DAMO-YOLO releases: their structure lists are read, and their deployed form is made.

Nothing in a file is executed. `deployed` is the one conversion from what is searched to what is deployed (DAMO-YOLO,
arXiv 2211.15444).
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from nas.blocks.operation import divisible
from nas.errors import SpecError
from nas.files import read_text
from nas.spec import CSP, Backbone, Block, InvertedResidual, Plain, Residual, Stem

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


def from_official(structure: Sequence[Mapping[str, object]] | str | Path, focus: bool | None = None) -> Backbone:
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


Family = Literal["res", "csp", "mob"]

#: Expansion of the nano models' first block; every later block adds half.
NANO_RATIO, NANO_RATIO_STEP = 3.5, 0.5


def deployed(spec: Backbone, family: Family = "res", focus: bool = True) -> Backbone:
    """DAMO-YOLO's backbone for a searched TinyNAS backbone, as its builders of that family make it.

    res (T, S): the same blocks without shortcuts at stride 2, ReLU, 3x3 convolutions with a parallel 1x1 in training.
    csp (M, L): one CSP stage per resolution on half the channels; a stride-1 block joins the stage before it; the
        down-sampler stands for the first unit of a stride-2 block, so it adds one unit less than its depth. SiLU.
    mob (nano): 5x5 inverted residuals, hidden width from the block's position (3.5, 4, 4.5 ... times the output);
        bottleneck and kernel of the searched block are not used. SiLU, no parallel branches.
    `focus`: a Focus stem (all but the current nano models), else a stride-2 convolution. All carry SPP.
    Raises SpecError if a block is not residual, or cannot be part of a CSP stage.
    """
    stem = Stem("focus" if focus else "conv", spec.stem.out, spec.stem.kernel)
    residuals = [_residual(block, index) for index, block in enumerate(spec.blocks)]
    blocks: tuple[Block, ...]
    if family == "res":
        blocks = tuple(replace(block, shortcut="stride1") for block in residuals)
        return Backbone(stem, blocks, spec.out_blocks, "spp", "relu", reparam=True)
    if family == "mob":
        blocks = tuple(_inverted(block, index) for index, block in enumerate(residuals))
        return Backbone(stem, blocks, spec.out_blocks, "spp", "silu")
    if family == "csp":
        blocks, stages = _csp_stages(residuals)
        return Backbone(stem, blocks, tuple(stages[index] for index in spec.out_blocks), "spp", "silu", reparam=True)
    raise SpecError(f"unknown family {family!r}; known: res, csp, mob")


def _residual(block: Block, index: int) -> Residual:
    if not isinstance(block, Residual):
        raise SpecError(f"block {index} is {type(block).__name__}: only residual backbones have a deployed form")
    return block


def _inverted(block: Residual, index: int) -> InvertedResidual:
    ratio = NANO_RATIO + NANO_RATIO_STEP * index
    return InvertedResidual(block.out, divisible(math.ceil(block.out * ratio)), block.depth, block.stride)


def _csp_stages(blocks: list[Residual]) -> tuple[tuple[CSP, ...], list[int]]:
    """The stages, and for each searched block the index of its stage."""
    stages: list[CSP] = []
    members: list[int] = []
    for index, block in enumerate(blocks):
        if block.kind not in ("k1kx", "kxkx"):
            raise SpecError(f"block {index} is {block.kind}: CSP stages are built of k1kx or kxkx units")
        if block.stride == 2:
            if block.depth < 2:
                raise SpecError(f"block {index} has depth 1: its down-sampler would be the whole CSP stage")
            stages.append(CSP(block.out, block.bottleneck, block.depth - 1, 2, block.kernel, block.kind))
        else:
            if not stages:
                raise SpecError("the first block has stride 1: a CSP stage begins with a stride-2 block")
            last = stages[-1]
            units = (block.out, block.bottleneck, block.kernel, block.kind)
            if (last.out, last.bottleneck, last.kernel, last.kind) != units:
                raise SpecError(f"block {index} differs in width or units from the stage that it joins")
            stages[-1] = replace(last, depth=last.depth + block.depth)
        members.append(len(stages) - 1)
    return tuple(stages), members
