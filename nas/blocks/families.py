"""The blocks that backbones are made of: one small immutable class a family, checked when it is made.

Only the standard library is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Union, get_args

from nas.errors import SpecError, shown

Activation = Literal["relu", "silu"]
ResidualKind = Literal["k1kx", "kxkx", "k1kxk1", "k1dwk1", "k1dwsek1"]
DownKind = Literal["conv", "aconv", "adown"]
SppKind = Literal["none", "spp", "sppf", "sppelan"]
FusionKind = Literal["conv", "csp", "csp_rep", "elan"]


#: The most channels, units or classes that anything can have.
MOST = 100_000


def require_positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if type(value) is not int or not 1 <= value <= MOST:
            raise SpecError(
                f"{type(owner).__name__}.{name} must be a positive integer of at most {MOST:,}, got {shown(value)}"
            )


def require_choice(owner: object, name: str, options: Any) -> None:
    value = getattr(owner, name)
    if value not in get_args(options):
        raise SpecError(f"{type(owner).__name__}.{name} must be one of {', '.join(get_args(options))}, got {value!r}")


def require_flag(owner: object, *names: str) -> None:
    for name in names:
        if type(getattr(owner, name)) is not bool:
            raise SpecError(f"{type(owner).__name__}.{name} must be true or false, got {getattr(owner, name)!r}")


def require_block(owner: Any) -> None:
    require_positive(owner, "out", "stride")
    if owner.stride > 2:
        raise SpecError(f"{type(owner).__name__}.stride must be 1 or 2, got {owner.stride}")
    kernel = getattr(owner, "kernel", 3)
    if type(kernel) is not int or kernel < 1 or kernel % 2 == 0:
        raise SpecError(f"{type(owner).__name__}.kernel must be an odd positive integer, got {kernel!r}")


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
class Plain:
    """One convolution with BN and activation (the closing 1x1 of the MobileNet-like published nets)."""

    out: int
    kernel: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        require_block(self)

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
        require_choice(self, "kind", ResidualKind)
        require_choice(self, "shortcut", Literal["pooled", "stride1"])
        require_block(self)
        require_positive(self, "bottleneck", "depth")


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
        require_block(self)
        require_positive(self, "hidden", "depth")
        require_flag(self, "squeeze_excite")


@dataclass(frozen=True, slots=True)
class CSP:
    """DAMO-YOLO M/L stage: 3x3 stride-2 down-sampler, then `depth` units of `kind` on half the channels, fused 1x1.

    CSP-Darknet's stage is the same with k1kx units. The wrapper's own four convolutions use ReLU whatever the
    backbone's activation (as the official models).
    """

    out: int
    bottleneck: int
    depth: int
    stride: int = 2
    kernel: int = 3
    kind: Literal["k1kx", "kxkx"] = "kxkx"

    def __post_init__(self) -> None:
        require_block(self)
        require_choice(self, "kind", Literal["k1kx", "kxkx"])
        require_positive(self, "bottleneck", "depth")
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
        require_block(self)
        require_positive(self, "entry", "hidden", "inner")
        require_choice(self, "down", DownKind)
        if type(self.depth) is not int or not 0 <= self.depth <= MOST:
            raise SpecError(f"GELAN.depth must be 0 (ELAN1) or more, got {self.depth!r}")
        if self.hidden % 2 or self.stride != 2:
            raise SpecError("GELAN.hidden must be even and GELAN.stride 2")
        if self.depth and self.inner < 2:
            raise SpecError("GELAN.inner must be at least 2: the units of its branches have half of it")
        if self.down == "adown" and self.entry % 2:
            raise SpecError(f"GELAN.entry must be even with down=adown, got {self.entry}")


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
        require_block(self)
        require_positive(self, "entry", "hidden", "depth")
        require_flag(self, "c3k")
        if self.stride != 2:
            raise SpecError("C3k2.stride must be 2: the stage begins with its down-sampling convolution")
        least = 4 if self.c3k else 2  # a unit's inner convolutions have half of it, those of a C3k a quarter
        if self.hidden < least:
            raise SpecError(f"C3k2.hidden must be at least {least}, got {self.hidden}")


def attention_heads(width: int) -> int:
    """Heads of a YOLO11 attention unit on `width` channels: one for every 64, at least one."""
    return max(width // 64, 1)


@dataclass(frozen=True, slots=True)
class C2PSA:
    """YOLO11's attention block with `depth` PSA units on half the channels; keeps the width of its input."""

    out: int
    depth: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        require_block(self)
        require_positive(self, "depth")
        if self.stride != 1 or self.out % 2:
            raise SpecError("C2PSA.stride must be 1 and C2PSA.out even")
        half = self.out // 2
        if half % attention_heads(half):
            raise SpecError(f"C2PSA.out={self.out}: its {attention_heads(half)} heads do not divide {half} channels")


Block = Union[Plain, Residual, InvertedResidual, CSP, GELAN, C3k2, C2PSA]
BLOCK_TYPES: dict[str, type] = {kind.__name__: kind for kind in get_args(Block)}
