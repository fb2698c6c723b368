"""What an architecture is: small immutable values that every other part of maenas consumes.

Input channels are never stored: they follow from the previous block, so a spec cannot contradict itself.
Only the standard library is imported here.
"""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, Literal, Union, get_args

from nas.errors import SpecError

Activation = Literal["relu", "silu"]
ResidualKind = Literal["k1kx", "kxkx", "k1kxk1", "k1dwk1", "k1dwsek1"]
DownKind = Literal["conv", "aconv", "adown"]
SppKind = Literal["none", "spp", "sppf", "sppelan"]
FusionKind = Literal["conv", "csp", "csp_rep", "elan"]


def _positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if type(value) is not int or value < 1:
            raise SpecError(f"{type(owner).__name__}.{name} must be a positive integer, got {value!r}")


def _choice(owner: object, name: str, options: Any) -> None:
    value = getattr(owner, name)
    if value not in get_args(options):
        raise SpecError(f"{type(owner).__name__}.{name} must be one of {', '.join(get_args(options))}, got {value!r}")


def _flag(owner: object, *names: str) -> None:
    for name in names:
        if type(getattr(owner, name)) is not bool:
            raise SpecError(f"{type(owner).__name__}.{name} must be true or false, got {getattr(owner, name)!r}")


def _block(owner: Any) -> None:
    _positive(owner, "out", "stride")
    if owner.stride > 2:
        raise SpecError(f"{type(owner).__name__}.stride must be 1 or 2, got {owner.stride}")
    kernel = getattr(owner, "kernel", 3)
    if type(kernel) is not int or kernel < 1 or kernel % 2 == 0:
        raise SpecError(f"{type(owner).__name__}.kernel must be an odd positive integer, got {kernel!r}")


@dataclass(frozen=True, slots=True)
class Stem:
    """First layer: a strided convolution, or Focus (space-to-depth by 2, then a stride-1 convolution on 12 channels)."""

    kind: Literal["conv", "focus"]
    out: int
    kernel: int = 3
    stride: int = 2

    def __post_init__(self) -> None:
        _choice(self, "kind", Literal["conv", "focus"])
        _block(self)
        if self.kind == "focus" and self.stride != 2:
            raise SpecError("a focus stem always halves the image: its stride must be 2")


@dataclass(frozen=True, slots=True)
class Plain:
    """One convolution with BN and activation (the closing 1x1 of the MobileNet-like published nets)."""

    out: int
    kernel: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        _block(self)

    @property
    def depth(self) -> int:
        return 1


@dataclass(frozen=True, slots=True)
class Residual:
    """`depth` residual units of the TinyNAS families; the first maps the input to `out` with `stride`.

    `shortcut="pooled"` is TinyNAS (average pooling at stride 2, 1x1 projection when widths differ);
    `shortcut="stride1"` is DAMO-YOLO (no shortcut at all at stride 2).
    """

    kind: ResidualKind
    out: int
    bottleneck: int
    depth: int
    stride: int
    kernel: int = 3
    shortcut: Literal["pooled", "stride1"] = "stride1"

    def __post_init__(self) -> None:
        _choice(self, "kind", ResidualKind)
        _choice(self, "shortcut", Literal["pooled", "stride1"])
        _block(self)
        _positive(self, "bottleneck", "depth")


@dataclass(frozen=True, slots=True)
class InvertedResidual:
    """`depth` inverted bottlenecks (1x1 to `hidden`, depthwise, 1x1) of the DAMO-YOLO nano models."""

    out: int
    hidden: int
    depth: int
    stride: int
    kernel: int = 5
    squeeze_excite: bool = False

    def __post_init__(self) -> None:
        _block(self)
        _positive(self, "hidden", "depth")
        _flag(self, "squeeze_excite")


@dataclass(frozen=True, slots=True)
class CSP:
    """DAMO-YOLO M/L stage: 3x3 stride-2 down-sampler, then `depth` units of `kind` on half the channels, fused 1x1.

    CSP-Darknet's stage is the same with k1kx units. The wrapper's own four convolutions use ReLU whatever the backbone's activation (as the official models).
    """

    out: int
    bottleneck: int
    depth: int
    stride: int = 2
    kernel: int = 3
    kind: Literal["k1kx", "kxkx"] = "kxkx"

    def __post_init__(self) -> None:
        _block(self)
        _choice(self, "kind", Literal["k1kx", "kxkx"])
        _positive(self, "bottleneck", "depth")
        if self.stride != 2:
            raise SpecError("CSP.stride must be 2: the stage begins with its down-sampler")
        if self.out % 2:
            raise SpecError(f"CSP.out must be even, got {self.out}")


@dataclass(frozen=True, slots=True)
class GELAN:
    """YOLOv9 stage: a down-sampler to `entry` channels, then ELAN1 (`depth` 0) or RepNCSPELAN4 with `depth` units.

    `hidden` is the width that is split in halves (c3), `inner` the width of the two computed branches (c4).
    """

    out: int
    entry: int
    hidden: int
    inner: int
    depth: int
    stride: int = 2
    down: DownKind = "aconv"

    def __post_init__(self) -> None:
        _block(self)
        _positive(self, "entry", "hidden", "inner")
        _choice(self, "down", DownKind)
        if type(self.depth) is not int or self.depth < 0:
            raise SpecError(f"GELAN.depth must be 0 (ELAN1) or more, got {self.depth!r}")
        if self.hidden % 2 or self.stride != 2:
            raise SpecError("GELAN.hidden must be even and GELAN.stride 2")


@dataclass(frozen=True, slots=True)
class C3k2:
    """YOLO11 stage: a 3x3 stride-2 convolution to `entry` channels, then C3k2 with `depth` units of width `hidden`."""

    out: int
    entry: int
    hidden: int
    depth: int
    stride: int = 2
    c3k: bool = False

    def __post_init__(self) -> None:
        _block(self)
        _positive(self, "entry", "hidden", "depth")
        _flag(self, "c3k")
        if self.stride != 2:
            raise SpecError("C3k2.stride must be 2: the stage begins with its down-sampling convolution")


@dataclass(frozen=True, slots=True)
class C2PSA:
    """YOLO11's attention block with `depth` PSA units on half the channels; keeps the width of its input."""

    out: int
    depth: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        _block(self)
        _positive(self, "depth")
        if self.stride != 1 or self.out % 2:
            raise SpecError("C2PSA.stride must be 1 and C2PSA.out even")


Block = Union[Plain, Residual, InvertedResidual, CSP, GELAN, C3k2, C2PSA]
BLOCK_TYPES: dict[str, type] = {kind.__name__: kind for kind in get_args(Block)}


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
        _choice(self, "spp", SppKind)
        _choice(self, "activation", Activation)
        _flag(self, "reparam")
        if not self.blocks:
            raise SpecError("a backbone needs at least one block")
        outs = self.out_blocks
        if any(type(i) is not int for i in outs) or list(outs) != sorted(set(outs)):
            raise SpecError(f"Backbone.out_blocks must be increasing block indices, got {list(outs)}")
        if not outs or outs[0] < 0 or outs[-1] >= len(self.blocks):
            raise SpecError(f"Backbone.out_blocks must lie in 0..{len(self.blocks) - 1}, got {list(outs)}")

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


@dataclass(frozen=True, slots=True)
class NeckSpec:
    """Efficient RepGFPN (DAMO-YOLO section 2.2): fusion depth, output widths O3..O5 and hidden ratio per level.

    `extra_down` are the queen-fusion down-sampling edges (C4->P5, C3->P4, P4->N5), `extra_up` the GFPN
    up-sampling edges that DAMO-YOLO dropped; `fusion` is the style of report table 4.
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
        if len(self.hidden_ratio) != 3 or any(not isinstance(r, float) or not 0 < r <= 8 for r in self.hidden_ratio):
            raise SpecError(f"NeckSpec.hidden_ratio must be three numbers in (0, 8], got {list(self.hidden_ratio)}")
        _choice(self, "activation", Activation)
        _choice(self, "fusion", FusionKind)
        _flag(self, "depthwise", "extra_down", "extra_up")


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """ZeroHead: one k x k projection per task and level; `stacked` adds shared-nothing 3x3 layers before it (ablation)."""

    num_classes: int = 80
    reg_max: int = 16
    kernel: int = 3
    stacked: int = 0

    def __post_init__(self) -> None:
        _positive(self, "num_classes", "reg_max", "kernel")
        if type(self.stacked) is not int or self.stacked < 0:
            raise SpecError(f"HeadSpec.stacked must be 0 or more, got {self.stacked!r}")
        if self.kernel % 2 == 0:
            raise SpecError(f"HeadSpec.kernel must be odd, got {self.kernel}")


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """A whole detector: backbone, neck, head, and the side of its square input in pixels."""

    backbone: Backbone
    neck: NeckSpec
    head: HeadSpec = field(default_factory=HeadSpec)
    image_size: int = 640

    def __post_init__(self) -> None:
        _positive(self, "image_size")
        if self.backbone.out_strides != (8, 16, 32):
            raise SpecError(
                f"a detector needs backbone outputs at strides 8, 16, 32; out_blocks give {list(self.backbone.out_strides)}"
            )
        if self.image_size % 32:
            raise SpecError(f"DetectorSpec.image_size must be a multiple of 32, got {self.image_size}")


Spec = Union[Backbone, DetectorSpec]


def to_dict(value: Any) -> Any:
    """Plain dicts, lists, strings and numbers of a spec; blocks carry their class under `type`."""
    if isinstance(value, tuple):
        return [to_dict(item) for item in value]
    if not hasattr(value, "__dataclass_fields__"):
        return value
    tagged = {"type": type(value).__name__} if type(value) in BLOCK_TYPES.values() else {}
    return tagged | {item.name: to_dict(getattr(value, item.name)) for item in fields(value)}


@lru_cache(maxsize=None)
def _annotations(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _convert(annotation: Any, data: Any, where: str) -> Any:
    origin = typing.get_origin(annotation)
    if origin in (Union, types.UnionType):
        if not isinstance(data, Mapping) or data.get("type") not in BLOCK_TYPES:
            kind = data.get("type") if isinstance(data, Mapping) else data
            raise SpecError(f"{where}: unknown block type {kind!r}; known: {', '.join(BLOCK_TYPES)}")
        return _build(BLOCK_TYPES[data["type"]], {key: item for key, item in data.items() if key != "type"}, where)
    if origin is tuple:
        arguments = get_args(annotation)
        if not isinstance(data, list | tuple):
            data = [data] * len(arguments) if arguments[0] is float else data
        if not isinstance(data, list | tuple):
            raise SpecError(f"{where} must be a list, got {data!r}")
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if hasattr(annotation, "__dataclass_fields__"):
        return _build(annotation, data, where)
    if annotation is float and type(data) is int:
        return float(data)
    expected = annotation if isinstance(annotation, type) else str
    if type(data) is not expected:
        raise SpecError(f"{where} must be {expected.__name__}, got {data!r}")
    return data


def _build(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise SpecError(f"{where} must be a mapping that describes a {kind.__name__}, got {data!r}")
    annotations = _annotations(kind)
    for key in data:
        if key not in annotations:
            raise SpecError(f"{where}: unknown field {key!r} of {kind.__name__}; known: {', '.join(annotations)}")
    values = {key: _convert(annotations[key], item, f"{where}.{key}") for key, item in data.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise SpecError(f"{where}: {kind.__name__} lacks {str(error).split(': ')[-1]}") from None
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from None


def from_dict(data: Mapping[str, Any]) -> Spec:
    """The spec that `to_dict` described: a detector if it has a `backbone`, else a backbone.

    Raises SpecError that names the field for anything unknown, missing or of the wrong type.
    """
    if not isinstance(data, Mapping):
        raise SpecError(f"a spec must be a mapping, got {data!r}")
    return typing.cast(Spec, _build(DetectorSpec if "backbone" in data else Backbone, data, "spec"))


def digest(spec: Spec) -> str:
    """Sixteen hex digits that identify a spec: the same for equal specs on every machine and Python version."""
    text = json.dumps(to_dict(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
