"""Which limits of a TinyNAS space a backbone breaks, each in one line that names the limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.spec import Backbone, Residual

if TYPE_CHECKING:
    from search_spaces.chain import TinyNASSpace


def chain_violations(space: TinyNASSpace, spec: Backbone) -> list[str]:
    """All broken limits; only the first kind of trouble if the backbone is not such a chain at all."""
    broken = _frame_violations(space, spec)
    blocks = space.searched(spec)
    if len(spec.blocks) != len(space.frame.blocks) or not all(
        isinstance(block, Residual) and block.kind == space.kind for block in blocks
    ):
        return broken
    before = spec.stem.out
    low, high = space.stem_channels
    if not low <= before <= high or before % space.step:
        broken.append(f"stem width {before} is not a multiple of {space.step} in [{low}, {high}]")
    for index, block in enumerate(blocks):
        broken += [f"block {index}: {line}" for line in _block_violations(space, index, block, before)]
        before = block.out
    if space.layers_of(spec) > space.max_layers:
        broken.append(f"{space.layers_of(spec)} layers exceed max_layers {space.max_layers}")
    return broken


def _frame_violations(space: TinyNASSpace, spec: Backbone) -> list[str]:
    """What differs from the parts that the space holds fixed."""
    frame, n = space.frame, len(space.strides)
    if len(spec.blocks) != len(frame.blocks):
        return [f"{len(spec.blocks)} blocks, the space has {len(frame.blocks)}"]
    broken = []
    for index, block in enumerate(spec.blocks[:n]):
        if not isinstance(block, Residual) or block.kind != space.kind:
            broken.append(f"block {index} is not a {space.kind} residual block")
    strides = [block.stride for block in spec.blocks[:n]]
    if strides != list(space.strides):
        broken.append(f"strides {strides} differ from {list(space.strides)}")
    if spec.blocks[n:] != frame.blocks[n:]:
        broken.append(f"the closing convolution is not 1x1 to {space.closing}")
    for name in ("kind", "kernel", "stride"):
        mine, its = getattr(frame.stem, name), getattr(spec.stem, name)
        if mine != its:
            broken.append(f"stem {name} {its} differs from {mine}")
    for name in ("out_blocks", "spp", "activation", "reparam"):
        mine, its = getattr(frame, name), getattr(spec, name)
        if mine != its:
            broken.append(f"{name} {_plain(its)} differs from {_plain(mine)}")
    return broken


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _block_violations(space: TinyNASSpace, index: int, block: Residual, before: int) -> list[str]:
    broken, (low, high), out = [], space.channels[index], block.out
    if not low <= out <= high or out % space.step:
        broken.append(f"width {out} is not a multiple of {space.step} in [{low}, {high}]")
    if out < before:
        broken.append(f"width {out} is below its input's {before}")
    if index and out > space.growth * before:
        broken.append(f"width {out} exceeds {space.growth:g} times its input's {before}")
    if block.bottleneck not in space.bottlenecks(out):
        broken.append(f"bottleneck {block.bottleneck} of width {out} is not {_bottleneck_rule(space)}")
    if block.depth > space.depths[index]:
        broken.append(f"depth {block.depth} exceeds {space.depths[index]}")
    if block.kernel not in space.block_kernels(index):
        broken.append(f"kernel {block.kernel} is not among {list(space.block_kernels(index))}")
    if block.shortcut != space.shortcut:
        broken.append(f"shortcut {block.shortcut} differs from {space.shortcut}")
    return broken


def _bottleneck_rule(space: TinyNASSpace) -> str:
    if space.ratios:
        return f"at one of the ratios {', '.join(f'{ratio:g}' for ratio in space.ratios)}"
    low, high = space.bottleneck
    return f"a multiple of {space.step} from {low:g} to {high:g} times the width"
