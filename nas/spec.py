"""What an architecture is: small immutable values that every other part of maenas consumes.

Input channels are never stored: they follow from the previous block, so a spec cannot contradict itself.
Only the standard library is imported here.
"""

from __future__ import annotations

import hashlib
import json
import operator
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args

from nas.blocks import BLOCK_TYPES, C2PSA, CSP, GELAN, Block, C3k2, InvertedResidual, Plain, Residual
from nas.blocks.base import require_block, require_choice, require_flag, require_positive
from nas.blocks.c3k2 import attention_heads
from nas.blocks.gelan import DownKind
from nas.blocks.residual import ResidualKind
from nas.errors import SpecError, UserError, shown
from nas.extensions import installed, is_reference, loaded, reference_to

__all__ = [
    "BLOCK_TYPES", "CSP", "GELAN", "Activation", "Backbone", "Block", "C2PSA", "C3k2", "DetectorSpec", "DownKind",
    "FusionKind", "HeadSpec", "InvertedResidual", "NeckSpec", "Plain", "Residual", "ResidualKind", "Spec", "SppKind",
    "Stem", "attention_heads", "digest", "from_dict", "image_side", "require_side", "to_dict",
]  # fmt: skip

Activation = Literal["relu", "silu"]
SppKind = Literal["none", "spp", "sppf", "sppelan"]
FusionKind = Literal["conv", "csp", "csp_rep", "elan"]


@dataclass(frozen=True, slots=True)
class Stem:
    """First layer: a strided convolution, or Focus (space-to-depth by 2, then a stride-1 convolution)."""

    kind: Literal["conv", "focus"]
    out: int
    kernel: int = 3
    stride: int = 2

    def __post_init__(self) -> None:
        require_choice(self, "kind", Literal["conv", "focus"])
        require_block(self)
        if self.kind == "focus" and self.stride != 2:
            raise SpecError("a focus stem always halves the image: its stride must be 2")


@dataclass(frozen=True, slots=True)
class Backbone:
    """A stem and blocks; `out_blocks` are the indices into `blocks` (0-based) of the maps C3, C4, C5.

    `spp` is the pooling pyramid of the last block; `reparam` gives each unit's last k x k convolution a parallel
    1x1 branch in the training form (merged when deployed).
    """

    stem: Stem
    blocks: tuple[Block, ...]
    out_blocks: tuple[int, ...]
    spp: SppKind = "none"
    activation: Activation = "relu"
    reparam: bool = False

    def __post_init__(self) -> None:
        require_choice(self, "spp", SppKind)
        require_choice(self, "activation", Activation)
        require_flag(self, "reparam")
        if not self.blocks:
            raise SpecError("a backbone needs at least one block")
        outs = self.out_blocks
        if any(type(i) is not int for i in outs) or list(outs) != sorted(set(outs)):
            raise SpecError(f"Backbone.out_blocks must be increasing block indices, got {list(outs)}")
        if not outs or outs[0] < 0 or outs[-1] >= len(self.blocks):
            raise SpecError(f"Backbone.out_blocks must lie in 0..{len(self.blocks) - 1}, got {list(outs)}")
        width = self.stem.out
        for index, block in enumerate(self.blocks):
            if not (isinstance(block, Block) and hasattr(block, "depth")):
                raise SpecError(
                    f"blocks[{index}] is a {type(block).__name__}: a block derives from nas.blocks.Block, "
                    "and has out, stride and depth"
                )
            try:
                block.require_input(width)
            except SpecError as error:
                raise SpecError(f"blocks[{index}]: {error}") from None
            width = block.out

    @property
    def levels(self) -> tuple[int, ...]:
        """Resolution group of each block; the stem is level 0 and every stride-2 block opens the next level."""
        level, levels = 0, []
        for block in self.blocks:
            level += block.stride == 2
            levels.append(level)
        return tuple(levels)

    @property
    def out_channels(self) -> tuple[int, ...]:
        return tuple(self.blocks[i].out for i in self.out_blocks)

    @property
    def out_strides(self) -> tuple[int, ...]:
        return tuple(self.stem.stride * 2 ** self.levels[i] for i in self.out_blocks)


#: Least and largest hidden width of a fusion block, as a share of its branch.
HIDDEN_RATIOS = (1 / 16, 8.0)


@dataclass(frozen=True, slots=True)
class NeckSpec:
    """Efficient RepGFPN (DAMO-YOLO section 2.2): fusion depth, output widths O3..O5 and hidden ratio per level.

    `extra_down` are the queen-fusion down-sampling edges (C4->P5, C3->P4, P4->N5), `extra_up` the GFPN
    up-sampling edges that DAMO-YOLO dropped (C5->P4, C4->P3, P4->N3, P5->N4); `fusion` is the style of report table 4.
    """

    out: tuple[int, int, int]
    depth: int = 3
    hidden_ratio: tuple[float, float, float] = (0.75, 0.75, 0.75)
    activation: Activation = "relu"
    depthwise: bool = False
    fusion: FusionKind = "elan"
    extra_down: bool = True
    extra_up: bool = False

    def __post_init__(self) -> None:
        if len(self.out) != 3 or any(type(c) is not int or c < 2 for c in self.out):
            raise SpecError(f"NeckSpec.out must be three widths of at least 2, got {list(self.out)}")
        if type(self.depth) is not int or self.depth < 0:
            raise SpecError(f"NeckSpec.depth must be 0 or more, got {self.depth!r}")
        low, high = HIDDEN_RATIOS
        if len(self.hidden_ratio) != 3 or not all(isinstance(r, float) and low <= r <= high for r in self.hidden_ratio):
            raise SpecError(
                f"NeckSpec.hidden_ratio must be three numbers from {low:g} to {high:g}, got {list(self.hidden_ratio)}"
            )
        require_choice(self, "activation", Activation)
        require_choice(self, "fusion", FusionKind)
        require_flag(self, "depthwise", "extra_down", "extra_up")


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """ZeroHead: one k x k projection per task and level; `stacked` adds 3x3 layers before both (ablation).

    one_to_one: deployed without NMS; a second head of the same shape, which only training has, teaches the network.
    """

    num_classes: int = 80
    reg_max: int = 16
    kernel: int = 3
    stacked: int = 0
    one_to_one: bool = field(default=False, metadata={"later": True})

    def __post_init__(self) -> None:
        require_positive(self, "num_classes", "reg_max", "kernel")
        if type(self.stacked) is not int or self.stacked < 0:
            raise SpecError(f"HeadSpec.stacked must be 0 or more, got {self.stacked!r}")
        if self.kernel % 2 == 0:
            raise SpecError(f"HeadSpec.kernel must be odd, got {self.kernel}")
        require_flag(self, "one_to_one")


#: Pixels at which whatever has no image size of its own is counted, priced and scored.
USUAL_SIDE = 640
#: Pixels of the input from one prediction of a level to the next, level by level.
STRIDES = (8, 16, 32)
#: Final rows of a detector without NMS.
ONE_TO_ONE_ROWS = 300


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """A whole detector: backbone, neck, head, and the side of its square input in pixels."""

    backbone: Backbone
    neck: NeckSpec
    head: HeadSpec = field(default_factory=HeadSpec)
    image_size: int = USUAL_SIDE

    def __post_init__(self) -> None:
        require_positive(self, "image_size")
        if self.backbone.out_strides != (8, 16, 32):
            raise SpecError(
                "a detector needs backbone outputs at strides 8, 16, 32; "
                f"out_blocks give {list(self.backbone.out_strides)}"
            )
        require_side(self.image_size)


def require_side(image_size: object, multiple: int = 32) -> int:
    """The side of a square input that strides must divide, a detector's unless told; raises SpecError otherwise."""
    side = _whole(image_size)
    if side is None or side < multiple or side % multiple:
        what = f"multiple of {multiple}" if multiple > 1 else "whole number of pixels"
        raise SpecError(f"image_size must be a positive {what}, got {image_size!r}")
    return side


def image_side(network: object, image_size: int | None = None) -> int:
    """The side, in pixels, of the square image for a network: `image_size` if given, else its own, else 640.

    network: a spec, or a module, whose `image_size` and `strides` are read where it has them. Raises SpecError unless
    a detector's strides divide the side; a bare backbone, which joins no maps, takes any that its last stride fits in.
    """
    side = getattr(network, "image_size", USUAL_SIDE) if image_size is None else image_size
    if isinstance(network, Backbone):
        least = network.stem.stride * 2 ** network.levels[-1]
        if require_side(side, 1) < least:
            raise SpecError(f"image_size must be at least the backbone's last stride, {least}, got {side}")
        return require_side(side, 1)
    strides = getattr(network, "strides", (32,) if isinstance(network, DetectorSpec) else ())
    multiple = max((stride for stride in strides if type(stride) is int), default=1) if type(strides) is tuple else 1
    return require_side(side, multiple)


def _whole(value: Any) -> int | None:
    """A whole number as an int (numpy's too), None for anything else."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


Spec = Union[Backbone, DetectorSpec]


def backbone_of(spec: Spec) -> Backbone:
    """The backbone of a detector, or the backbone itself."""
    return spec.backbone if isinstance(spec, DetectorSpec) else spec


def to_dict(value: Spec | Block) -> dict[str, object]:
    """Plain dicts, lists, strings and numbers of a spec; blocks carry under `type` their class, one's own as `module:class`.

    Fields that came later are told where they are not at their default, so that older specs keep their digests.
    """
    plain: dict[str, object] = _plain(value)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if not hasattr(value, "__dataclass_fields__"):
        return value
    tagged = {"type": _block_name(type(value))} if isinstance(value, Block) else {}
    told = [item for item in fields(value) if "later" not in item.metadata or getattr(value, item.name) != item.default]
    return tagged | {item.name: _plain(getattr(value, item.name)) for item in told}


def _block_name(kind: type[Block]) -> str:
    return kind.__name__ if BLOCK_TYPES.get(kind.__name__) is kind else reference_to(kind)


def _block_type(name: Any, where: str) -> type[Block]:
    """The family that a file calls so; one's own only if it is imported or installed already."""
    if isinstance(name, str) and name in BLOCK_TYPES:
        return BLOCK_TYPES[name]
    if isinstance(name, str) and not is_reference(name) and name in (points := installed("block")):
        name = points[name].value
    if not isinstance(name, str) or not is_reference(name):
        raise SpecError(
            f"{where}: unknown block type {shown(name)}; known: {', '.join(BLOCK_TYPES)}, or your own as module:class"
        )
    try:
        kind = loaded(name, "block", where)
    except UserError as error:
        raise SpecError(str(error)) from None
    if not (isinstance(kind, type) and issubclass(kind, Block) and is_dataclass(kind)):
        raise SpecError(
            f"{where}: {name} is no block: it must be a frozen dataclass that derives from nas.blocks.Block"
        )
    return kind


@cache
def _annotations(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {item.name: hints[item.name] for item in fields(kind)}


def _convert(annotation: Any, data: Any, where: str) -> Any:
    origin = typing.get_origin(annotation)
    if annotation is Block:
        if not isinstance(data, Mapping):
            raise SpecError(f"{where}: unknown block type {shown(data)}; known: {', '.join(BLOCK_TYPES)}")
        kind = _block_type(data.get("type"), where)
        return _build(kind, {key: item for key, item in data.items() if key != "type"}, where)
    if origin in (Union, types.UnionType):
        if data is None and types.NoneType in get_args(annotation):
            return None
        annotation = next(option for option in get_args(annotation) if option is not types.NoneType)
        return _convert(annotation, data, where)
    if origin is tuple:
        arguments = get_args(annotation)
        if not isinstance(data, list | tuple):
            data = [data] * len(arguments) if arguments[0] is float else data
        if not isinstance(data, list | tuple):
            raise SpecError(f"{where} must be a list, got {shown(data)}")
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if hasattr(annotation, "__dataclass_fields__"):
        return _build(annotation, data, where)
    if annotation is float and type(data) is int:
        return float(data)
    expected = annotation if isinstance(annotation, type) else str
    if type(data) is not expected:
        raise SpecError(f"{where} must be {expected.__name__}, got {shown(data)}")
    return data


def _build(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise SpecError(f"{where} must be a mapping that describes a {kind.__name__}, got {shown(data)}")
    annotations = _annotations(kind)
    for key in data:
        if key not in annotations:
            raise SpecError(f"{where}: unknown field {shown(key)} of {kind.__name__}; known: {', '.join(annotations)}")
    values = {key: _convert(annotations[key], item, f"{where}.{key}") for key, item in data.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise SpecError(f"{where}: {kind.__name__} lacks {str(error).split(': ')[-1]}") from None
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from None


def from_dict(data: Mapping[str, object]) -> Spec:
    """The spec that `to_dict` described: a detector if it has a `backbone`, else a backbone.

    Raises SpecError that names the field for anything unknown, missing or of the wrong type.
    """
    if not isinstance(data, Mapping):
        raise SpecError(f"a spec must be a mapping, got {shown(data)}")
    return typing.cast(Spec, _build(DetectorSpec if "backbone" in data else Backbone, data, "spec"))


def digest(spec: Spec) -> str:
    """Sixteen hex digits that identify a spec: the same for equal specs on every machine and Python version."""
    text = json.dumps(to_dict(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
