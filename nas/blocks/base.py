"""What every block is, built in or of one's own: an immutable value that says itself what it is made of and what builds it.

Only the standard library is imported here.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import Field
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from nas.blocks.operation import Operation
from nas.errors import SpecError, shown

if TYPE_CHECKING:
    from torch import nn

Size = tuple[int, int]

#: The most channels, units or classes that anything can have.
MOST = 100_000


def require_positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if type(value) is not int or not 1 <= value <= MOST:
            raise SpecError(
                f"{type(owner).__name__}.{name} must be a positive integer of at most {MOST:,}, got {shown(value)}"
            )


def require_choice(owner: object, name: str, options: object) -> None:
    value = getattr(owner, name)
    if value not in get_args(options):
        raise SpecError(f"{type(owner).__name__}.{name} must be one of {', '.join(get_args(options))}, got {value!r}")


def require_flag(owner: object, *names: str) -> None:
    for name in names:
        if type(getattr(owner, name)) is not bool:
            raise SpecError(f"{type(owner).__name__}.{name} must be true or false, got {getattr(owner, name)!r}")


def require_block(owner: object) -> None:
    require_positive(owner, "out", "stride")
    stride, kernel = getattr(owner, "stride", 1), getattr(owner, "kernel", 3)
    if stride > 2:
        raise SpecError(f"{type(owner).__name__}.stride must be 1 or 2, got {stride}")
    if type(kernel) is not int or kernel < 1 or kernel % 2 == 0:
        raise SpecError(f"{type(owner).__name__}.kernel must be an odd positive integer, got {kernel!r}")


class Block(ABC):
    """One block of a backbone; a family is a frozen, slotted dataclass that derives from it.

    Its fields are what YAML stores: whole and real numbers, strings, flags, tuples of these, other blocks. It has `out`,
    `stride` (1 or 2) and `depth`, its number of units, as fields, properties or constants of the class.
    A family tells its `operations`, and names as `module` the torch module with exactly these operations:
    `module:class`, imported when a network is built and called with (block, in_channels, activation, reparam);
    or it overrides `build`.
    """

    __slots__ = ()
    if TYPE_CHECKING:
        out: int
        stride: int
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

        @property
        def depth(self) -> int: ...

    #: Where the torch module is: "my_package.layers:ShuffleStage".
    module: ClassVar[str] = ""
    #: Whether the pooling pyramid may stand at this block; closing blocks pass it on to the block before them.
    carries_pyramid: ClassVar[bool] = True
    #: Whether DAMO-YOLO's SPP stands inside, at `spp_index`; the module is then called with `spp` too. Else behind it.
    spp_inside: ClassVar[bool] = False
    #: Whether it has the width of its input, so that it cannot be scaled for itself.
    keeps_width: ClassVar[bool] = False
    #: Whether a wider block of the family may lack its shortcuts: what they cost is no part of the least cost.
    shortcuts_may_go: ClassVar[bool] = False
    #: Official name of a backbone's list of stages, and whether it begins with the nano family's start values, where
    #: all blocks agree.
    list_name: ClassVar[str] = "block_list"
    nano_start: ClassVar[bool] = False

    @abstractmethod
    def operations(self, in_channels: int, size: Size, activation: str, reparam: bool) -> list[Operation]:
        """Operations in training form on an input map of `size` (height, width), in execution order.

        activation: the backbone's; reparam: whether k x k convolutions have a parallel 1x1 (`convolution(rep=True)`).
        """

    def spp_index(self, operations: Sequence[Operation]) -> int:
        """Before which of its operations SPP stands."""
        return len(operations)

    def require_input(self, in_channels: int) -> None:  # noqa: B027
        """Raise SpecError for a width of the input map that the block cannot take; all are taken unless told."""

    def build(self, in_channels: int, activation: str, reparam: bool, **spp: nn.Module | None) -> nn.Module:
        """The torch module, freshly initialised; `spp` is given to a block that has it inside."""
        module, _, name = self.module.partition(":")
        if not name:
            raise SpecError(
                f"{type(self).__name__} has no torch module: give its class module = 'package.module:Class'"
            )
        made: nn.Module = getattr(importlib.import_module(module), name)(self, in_channels, activation, reparam, **spp)
        return made


def second_unit(operations: Sequence[Operation]) -> int:
    """Index of the first operation behind the first unit, where TinyNAS and nano blocks have their SPP."""
    return next((index for index, operation in enumerate(operations) if operation.unit >= 1), len(operations))
