"""The neck and head around a searched backbone: what stays the same while backbones come and go."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

from annotated_types import Ge, Le

from nas.errors import UserError
from nas.options import Kernel, Pixels, Width
from nas.spec import HIDDEN_RATIOS, USUAL_SIDE, Activation, DetectorSpec, FusionKind, HeadSpec, NeckSpec, Spec

Depth = Annotated[int, Ge(0), Le(100)]
HiddenRatio = Annotated[float, Ge(HIDDEN_RATIOS[0]), Le(HIDDEN_RATIOS[1])]


#: What NeckSpec and HeadSpec are unless told.
_NECK, _HEAD = NeckSpec((2, 2, 2)), HeadSpec()


@dataclass(frozen=True, slots=True)
class NeckOptions:
    """Neck and head as configuration, the `neck` group of the commands; the defaults are those of DAMO-YOLO S.

    out: neck output widths, or None for the backbone's own C3, C4, C5 (DAMO-YOLO S, M, L).
    """

    depth: Depth = _NECK.depth
    out: tuple[Width, Width, Width] | None = None
    hidden_ratio: tuple[HiddenRatio, HiddenRatio, HiddenRatio] = _NECK.hidden_ratio
    activation: Activation = _NECK.activation
    depthwise: bool = _NECK.depthwise
    fusion: FusionKind = _NECK.fusion
    extra_down: bool = _NECK.extra_down
    extra_up: bool = _NECK.extra_up
    num_classes: Annotated[int, Ge(1), Le(100_000)] = _HEAD.num_classes
    reg_max: Annotated[int, Ge(1), Le(1024)] = _HEAD.reg_max
    head_kernel: Kernel = _HEAD.kernel
    head_stacked: Depth = _HEAD.stacked
    head_one_to_one: bool = _HEAD.one_to_one


@dataclass(frozen=True, slots=True)
class Frame(NeckOptions):
    """Everything of a detector but its backbone; image_size: side in pixels."""

    image_size: Pixels = USUAL_SIDE

    @classmethod
    def of(cls, neck: NeckOptions, image_size: int) -> Frame:
        """These options at an image size."""
        return cls(**{item.name: getattr(neck, item.name) for item in fields(NeckOptions)}, image_size=image_size)

    @property
    def head(self) -> HeadSpec:
        return HeadSpec(self.num_classes, self.reg_max, self.head_kernel, self.head_stacked, self.head_one_to_one)

    def neck(self, channels: tuple[int, ...]) -> NeckSpec:
        """The neck on maps of these widths."""
        if len(channels) != 3:
            raise UserError(f"a detector's neck joins three maps, the backbone gives {len(channels)}")
        own = {item.name: getattr(self, item.name) for item in fields(NeckSpec) if item.name != "out"}
        return NeckSpec(self.out or (channels[0], channels[1], channels[2]), **own)

    def require_agreement(self, spec: Spec, space: str) -> None:
        """Raise UserError if a space's detectors bring another head or image size than this frame's."""
        if not isinstance(spec, DetectorSpec):
            return
        if spec.image_size != self.image_size:
            raise UserError(
                f"space {space} holds detectors of {spec.image_size} pixels, image_size is {self.image_size}"
            )
        for name, here in self.head_fields().items():
            if getattr(spec.head, name.removeprefix("head_")) != here:
                theirs = getattr(spec.head, name.removeprefix("head_"))
                raise UserError(f"space {space} holds detectors of {name} {theirs}, neck.{name} is {here}")

    def head_fields(self) -> dict[str, object]:
        """The fields that describe the head."""
        names = ("num_classes", "reg_max", "head_kernel", "head_stacked", "head_one_to_one")
        return {name: getattr(self, name) for name in names}

    def detector(self, spec: Spec) -> DetectorSpec:
        """The whole detector around a backbone; a detector that brings its own neck and head stays as it is."""
        if isinstance(spec, DetectorSpec):
            return spec
        return DetectorSpec(spec, self.neck(spec.out_channels), self.head, self.image_size)
