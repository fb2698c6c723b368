"""Conformance tests for code of one's own, and for the package's own: what is promised of spaces, scorers and blocks.

    def test_my_space() -> None:
        check_space(Slim(name="slim"))

Every check raises AssertionError with one line that tells what was broken, and on which network.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from random import Random

import yaml

from nas.blocks.base import Block
from nas.blocks.operation import Operation, halved
from nas.cost.count import count_spec
from nas.errors import SpecError
from nas.files import dump_yaml
from nas.lowering import operations
from nas.scorers import find_scorer, score_spec
from nas.spec import Activation, Backbone, Spec, Stem, digest, from_dict, to_dict
from search_spaces import SearchSpace, find_space, load_published

#: Networks on which a scorer is tried, unless others are given.
NETWORKS = ("damo-yolo-t", "damo-yolo-s")


def check_space(space: str | SearchSpace[Spec] | type[SearchSpace[Spec]], draws: int = 20) -> None:
    """Whether a space keeps the promises of `SearchSpace`: members, moves inside it, and limits that can be stored.

    draws: random members that are tried. Raises AssertionError for the first promise that is broken.
    """
    it = find_space(space)
    first = it.initial()
    _member(it, first, "initial()")
    samples = [it.sample(Random(seed)) for seed in range(draws)]
    moved = False
    for seed, a in enumerate(samples):
        _member(it, a, f"sample(Random({seed}))")
        _require(it.sample(Random(seed)) == a, f"sample(Random({seed})) differs when it is repeated")
        b = samples[seed - 1]
        before = digest(a)
        children = {
            "coarse mutate": it.mutate(a, Random(seed)),
            "minor mutate": it.mutate(a, Random(seed), "minor"),
            "crossover": it.crossover(a, b, Random(seed)),
            "mutate of initial()": it.mutate(first, Random(seed)),
        }
        for what, child in children.items():
            _member(it, child, f"{what} with Random({seed})")
        _require(digest(a) == before, f"a move changed its parent, sample {seed}")
        _require(it.mutate(a, Random(seed)) == children["coarse mutate"], f"mutate with Random({seed}) does not repeat")
        moved |= children["mutate of initial()"] != first
    _require(moved, f"no mutation of initial() changes anything in {draws} tries")
    _require(it.size() >= len(set(samples)), f"size() is {it.size()}, but {len(set(samples))} members were drawn")
    smallest = it.smallest()
    if smallest is not None:
        _member(it, smallest, "smallest()")
        least = count_spec(smallest).params
        for seed, sample in enumerate(samples):
            _require(count_spec(sample).params >= least, f"sample(Random({seed})) has fewer parameters than smallest()")
    _require(it.override(**it.limits()) == it, "override(**limits()) is another space")
    _require(all(isinstance(line, str) for line in it.reached(first)), "reached() must list text")


def check_scorer(
    scorer: str | Callable[..., float],
    networks: Sequence[str | Spec] = NETWORKS,
    image_size: int | None = None,
    **options: object,
) -> None:
    """Whether a scorer of specs or of modules gives one finite number a network, the same each time.

    networks: published names or specs that it must tell apart. Raises AssertionError for the first promise that is broken.
    """
    chosen = find_scorer(scorer)
    specs = [load_published(network) if isinstance(network, str) else network for network in networks]
    scores = []
    for spec in specs:
        before = digest(spec)
        score = score_spec(spec, scorer, image_size, **options)
        _require(math.isfinite(score), f"scorer {chosen.name} gives {score} for {before}")
        stored = from_dict(to_dict(spec))
        again = score_spec(stored, scorer, image_size, **options)
        _require(score == again, f"scorer {chosen.name} gives {score} and then {again} for {before}")
        scores.append(score)
    _require(len(specs) < 2 or len(set(scores)) > 1, f"scorer {chosen.name} gives every network the score {scores[:1]}")


def check_block(block: Block, in_channels: int = 64, image_size: int = 128) -> None:
    """Whether a block keeps the promises of `Block`: stored and read back, valid operations, a torch module that has these.

    in_channels: width of its input map, which is half as high and wide as the image of `image_size` pixels. Raises
    AssertionError for the first promise that is broken, SpecError if it cannot take the width.
    """
    name, side = type(block).__name__, image_size // 2
    activations: tuple[Activation, ...] = ("relu", "silu")
    for activation in activations:
        for reparam in (False, True):
            spec = Backbone(Stem("conv", in_channels), (block,), (0,), activation=activation, reparam=reparam)
            what = f"{name} with {activation}{' and reparam' if reparam else ''}"
            listed = block.operations(in_channels, (side, side), activation, reparam)
            _valid(listed, what)
            again = block.operations(in_channels, (side, side), activation, reparam)
            _require(listed == again, f"{what}: operations() differ when they are asked again")
            after, last = halved((side, side), block.stride), listed[-1]
            found = (last.out_channels, last.height, last.width)
            _require(found == (block.out, *after), f"{what}: operations() end with {found}, not {(block.out, *after)}")
            _require(block.depth >= 1, f"{name}.depth must be 1 or more, got {block.depth}")
            _stored(spec, what)
            _built(spec, sum(operation.params for operation in listed), what, image_size)


def _valid(listed: Sequence[Operation], what: str) -> None:
    _require(bool(listed), f"{what}: operations() must not be empty")
    names = ("in_channels", "out_channels", "height", "width", "in_height", "in_width", "kernel", "stride", "groups")
    for index, operation in enumerate(listed):
        where = f"{what}: operation {index} ({operation.kind})"
        for name in names:
            value = getattr(operation, name)
            _require(type(value) is int and value >= 1, f"{where} has {name} {value!r}, not a positive whole number")
        if operation.kind == "conv":
            divided = operation.in_channels % operation.groups == operation.out_channels % operation.groups == 0
            _require(divided, f"{where}: {operation.groups} groups do not divide its channels")


def _stored(spec: Backbone, what: str) -> None:
    try:
        read = from_dict(yaml.safe_load(dump_yaml(to_dict(spec))))
    except (SpecError, yaml.YAMLError) as error:
        raise AssertionError(f"{what} cannot be stored and read back: {error}") from None
    _require(read == spec and digest(read) == digest(spec), f"{what} changes when it is stored and read back")
    hash(spec)


def _built(spec: Backbone, params: int, what: str, image_size: int) -> None:
    """The torch module has the operations: parameters before it is fused, kernels and the size of its map afterwards."""
    import torch

    from nas.measure.trace import trace_operations
    from nas.models.build import build_model

    (block,) = spec.blocks
    module = block.build(spec.stem.out, spec.activation, spec.reparam)
    held = sum(parameter.numel() for parameter in module.parameters())
    _require(held == params, f"{what}: its module has {held} parameters, its operations {params}")
    backbone = build_model(spec).eval()
    with torch.no_grad():
        (found,) = backbone(torch.zeros(1, 3, image_size, image_size))
    side = image_size // spec.out_strides[0]
    _require(found.shape[1:] == (block.out, side, side), f"{what}: its module gives a map of {tuple(found.shape[1:])}")
    traced, told = _kernels(trace_operations(backbone, image_size)), _kernels(operations(spec, "folded", image_size))
    difference = [*(f"only traced: {op}" for op in traced - told), *(f"only told: {op}" for op in told - traced)]
    _require(not difference, f"{what}: its module does not run its operations; {'; '.join(difference[:2])}")


def _kernels(listed: Iterable[Operation]) -> Counter[Operation]:
    """Operations without what a trace cannot know; chains of pointwise kernels by their elements, however these lie."""

    def bare(operation: Operation) -> Operation:
        it = replace(operation, norm=False, bias=False, branch="", scalars=0)
        if it.kind not in ("elementwise", "softmax"):
            return it
        read, written = (channels * it.height * it.width for channels in (it.in_channels, it.out_channels))
        return replace(it, in_channels=read, out_channels=written, height=1, width=1, in_height=1, in_width=1)

    return Counter(map(bare, listed))


def _member(it: SearchSpace[Spec], spec: Spec, what: str) -> None:
    broken = it.violations(spec)
    _require(not broken, f"{what} is no member of {it.name}: {broken[0] if broken else ''}")
    _require(from_dict(to_dict(spec)) == spec, f"{what} changes when it is stored and read back")
    hash(spec)
    counts = count_spec(spec)
    _require(counts.params > 0 and counts.macs > 0, f"{what} has {counts.params} parameters and {counts.macs} MACs")


def _require(kept: bool, broken: str) -> None:
    if not kept:
        raise AssertionError(broken)
