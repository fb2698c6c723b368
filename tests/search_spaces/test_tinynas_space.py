"""The TinyNAS spaces: closed under their moves, exactly counted, and clear about what breaks them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.cost.count import count_spec
from nas.errors import SpecError, UserError
from nas.spec import Backbone, Plain, Stem
from search_spaces import find_space, space_names
from search_spaces.base import round_to
from search_spaces.streams import candidate_keys
from search_spaces.tinynas import SPACES, TinyNASSpace

NAMES = sorted(SPACES)
seeds = st.integers(0, 2**32)


def small_space(**limits: object) -> TinyNASSpace:
    """A space that can be enumerated: two blocks, few widths."""
    fields: dict[str, object] = {
        "strides": (2, 2),
        "channels": ((8, 24), (16, 32)),
        "depths": (2, 3),
        "max_layers": 9,
        "stem_channels": (8, 16),
        "start_stem": 8,
        "start": ((8, 8), (16, 8)),
        "out_blocks": (0, 1),
    }
    return replace(SPACES["official_tiny"], name="small", **(fields | limits))


def brute_force(space: TinyNASSpace) -> set[Backbone]:
    """All members of a small space, by trying every combination of fields on a wider grid than it allows."""
    widths, found = range(8, 48, 8), set()
    rows = [
        [
            space.block(i, out, mid, depth, kernel)
            for out, mid, depth, kernel in product(widths, range(8, 56, 8), range(1, 4 + i), (3, 5))
            if space.channels[i][0] <= out <= space.channels[i][1] + 8
        ]
        for i in range(2)
    ]
    for stem in widths:
        for first in rows[0]:
            if first.out > 24 or first.depth > 2 or stem > 16:
                continue
            for second in rows[1]:
                spec = replace(space.frame, stem=Stem("focus", stem), blocks=(first, second))
                if space.contains(spec):
                    found.add(spec)
    return found


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"growth": 2.0},
        {"ratios": (1.0, 1.5), "kind": "k1dwk1", "kernels": (3, 5), "start": ((8, 8), (16, 16)), "max_layers": 13},
    ],
    ids=["plain", "growth", "ratios"],
)
def test_size_counts_the_members_exactly(limits: dict[str, object]) -> None:
    space = small_space(**limits)
    members = brute_force(space)
    assert space.size() == len(members) > 100
    assert set(space.samples(candidate_keys(1, 0, 2000))) <= members
    walked, specs = set(), [space.initial()] * 200
    for step in range(30):
        specs = space.mutants(specs, candidate_keys(step, 0, 200), "minor" if step % 4 == 0 else "coarse")
        walked |= set(specs)
    assert walked <= members
    assert len(walked) > 0.5 * len(members) or len(walked) > 1000  # moves reach everywhere


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10)
@given(seed=seeds, mode=st.sampled_from(["coarse", "minor"]))
def test_moves_stay_in_the_space(name: str, seed: int, mode: str) -> None:
    space, rng = SPACES[name], Random(seed)
    a, b = space.sample(rng), space.initial()
    assert space.violations(a) == []
    for _ in range(4):
        b = space.mutate(b, rng, mode)  # type: ignore[arg-type]
        assert space.violations(b) == []
    for child in (space.mutate(a, rng, mode), space.crossover(a, b, rng), space.crossover(b, a, rng)):  # type: ignore[arg-type]
        assert space.violations(child) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_block_and_field_can_change(name: str) -> None:
    space, parents = SPACES[name], [SPACES[name].initial()] * 200
    changed: Counter[tuple[int, str]] = Counter()
    for step in range(10):
        children = space.mutants(parents, candidate_keys(step, 0, 200))
        for spec, child in zip(parents, children, strict=True):
            changed[-1, "out"] += child.stem.out != spec.stem.out
            for i, (old, new) in enumerate(zip(space.searched(spec), space.searched(child), strict=True)):
                for field in ("out", "bottleneck", "depth", "kernel"):
                    changed[i, field] += getattr(old, field) != getattr(new, field)
        parents = children
    last = len(space.strides) - 1
    assert changed[-1, "out"] and changed[last, "out"] and changed[last, "depth"] and changed[0, "bottleneck"]
    for i in range(last + 1):
        assert changed[i, "out"] and changed[i, "bottleneck"] and changed[i, "depth"]
        assert bool(changed[i, "kernel"]) == (len(space.block_kernels(i)) > 1)


def test_minor_moves_touch_one_width_by_small_steps() -> None:
    space, rng = SPACES["tinynas_k1kx"], Random(3)
    for _ in range(60):
        spec = space.sample(rng)
        child = space.mutate(spec, rng, "minor")
        pairs = list(zip(spec.blocks, child.blocks, strict=True))
        assert all(old.depth == new.depth and abs(old.out - new.out) <= 16 for old, new in pairs)  # type: ignore[union-attr]
        assert sum(old != new for old, new in pairs) + (spec.stem != child.stem) <= 1


def test_moves_repeat_with_the_seed() -> None:
    space = SPACES["tinynas_k1kx"]
    a, b = space.sample(Random(5)), space.sample(Random(5))
    assert a == b and space.mutate(a, Random(7)) == space.mutate(b, Random(7))


@pytest.mark.parametrize("name", NAMES)
def test_smallest_member_costs_least_and_full_members_say_what_is_full(name: str) -> None:
    space, rng = SPACES[name], Random(6)
    least = space.smallest()
    assert space.violations(least) == [] and space.reached(least) == []
    macs = count_spec(least, image_size=space.image_size).macs
    assert all(count_spec(space.sample(rng), image_size=space.image_size).macs >= macs for _ in range(5))
    if space.max_layers < 200:
        grown = [space.initial()] * 20
        for step in range(200):
            children = space.mutants(grown, candidate_keys(step, 0, 20))
            grown = [max(pair, key=space.layers_of) for pair in zip(children, grown, strict=True)]
        full = max(grown, key=space.layers_of)
        assert any("max_layers" in line or "depths" in line for line in space.reached(full))


@pytest.mark.parametrize("name", NAMES)
def test_layer_count_agrees_with_the_operations(name: str) -> None:
    space, rng = SPACES[name], Random(11)
    for _ in range(3):
        spec = space.sample(rng)
        assert space.layers_of(spec) == count_spec(spec, image_size=space.image_size).layers <= space.max_layers


def test_default_space_has_the_official_limits() -> None:
    space = SPACES["tinynas_k1kx"]
    assert (space.max_layers, space.depths, space.strides) == (25, (2, 3, 3, 3, 3), (2, 2, 2, 1, 2))
    assert [space.channels[i] for i in (1, 3, 4)] == [(64, 128), (128, 256), (256, 512)]
    spec = space.initial()
    assert (spec.spp, spec.reparam, spec.activation, spec.stem.kind) == ("spp", True, "relu", "focus")
    assert spec.out_strides == (8, 16, 32) and {block.shortcut for block in space.searched(spec)} == {"stride1"}
    assert space.bottlenecks(128)[0] == round_to(12.8) == 16 and space.bottlenecks(88)[0] == 8


def test_official_problems_start_where_the_official_program_starts() -> None:
    for name, layers in (("official_tiny", 20), ("official_small", 25)):
        space = SPACES[name]
        first = [(block.out, block.bottleneck, block.depth) for block in space.searched(space.initial())]
        assert first == [(48, 32, 1), (96, 48, 1), (96, 96, 1), (192, 96, 1), (384, 192, 1)]
        assert space.max_layers == layers and space.initial().stem.out == 32
    assert SPACES["official_tiny"].channels[4] == (256, 384)


def test_violations_name_the_limit() -> None:
    space = SPACES["tinynas_k1kx"]
    spec = space.initial()
    first, *rest = space.searched(spec)
    cases = {
        "stem width 40": replace(spec, stem=replace(spec.stem, out=40)),
        "stem kind conv": replace(spec, stem=replace(spec.stem, kind="conv")),
        "block 0: depth 3 exceeds 2": replace(spec, blocks=(replace(first, depth=3), *rest)),
        "block 0: bottleneck 40 of width 32": replace(spec, blocks=(replace(first, bottleneck=40), *rest)),
        "block 0: width 12": replace(spec, blocks=(replace(first, out=12), *rest)),
        "block 0: width 8 is below its input's 16": replace(spec, blocks=(replace(first, out=8, bottleneck=8), *rest)),
        "block 0: kernel 5": replace(spec, blocks=(replace(first, kernel=5), *rest)),
        "shortcut pooled": replace(spec, blocks=(replace(first, shortcut="pooled"), *rest)),
        "strides [1, 2, 2, 1, 2]": replace(spec, blocks=(replace(first, stride=1), *rest)),
        "4 blocks": replace(spec, blocks=spec.blocks[:4], out_blocks=(1, 2, 3)),
        "block 4 is not a k1kx": replace(spec, blocks=(*spec.blocks[:4], Plain(256, 3, 2))),
        "spp none": replace(spec, spp="none"),
        "max_layers 25": replace(spec, blocks=tuple(replace(b, depth=3) for b in (first, *rest))),
    }
    for text, broken in cases.items():
        lines = space.violations(broken)
        assert any(text in line for line in lines), (text, lines)
        with pytest.raises(SpecError, match="not in space tinynas_k1kx"):
            space.check(broken)


def test_limits_can_be_overridden_and_wrong_ones_are_refused() -> None:
    space = find_space("tinynas_k1kx", max_layers=19, depths=[1, 2, 2, 2, 2])
    assert isinstance(space, TinyNASSpace) and space.depths == (1, 2, 2, 2, 2)
    assert space.size() < SPACES["tinynas_k1kx"].size()
    wide = find_space("tinynas_k1kx", stem_channels=[24, 64], channels=[[48, 128]] * 3 + [[256, 512]] * 2)
    assert wide.initial().stem.out == 24 and wide.initial().blocks[0].out == 48  # the start moves into the limits
    for limits, message in (
        ({"layers": 3}, "no option 'layers'; did you mean max_layers"),
        ({"max_layers": "many"}, "space.max_layers must be a whole number from 1 to 10,000, got 'many'"),
        ({"step": 0}, "space.step must be a whole number from 1 to 1,024, got 0"),
        ({"growth": float("nan")}, "space.growth must be a number of at least 1, got nan"),
        (
            {"kernels": []},
            "space.kernels must be a list of at least 1, each entry a whole number from 1 to 31, odd, all different, got []",
        ),
        ({"bottleneck": [1.0, 0.1]}, "lowest first, got [1.0, 0.1]"),
        ({"scales": [float("nan")]}, "space.scales[0] must be a number from 0.01 to 100, got nan"),
        ({"kernels": [3, 3]}, "all different, got [3, 3]"),
        ({"max_layers": 9}, "max_layers >= 11"),
        ({"depths": [1, 2]}, "depths needs 5 entries"),
        ({"channels": [[8, 12]] * 5}, "multiples of 8"),
        ({"stem_channels": [8]}, "stem_channels"),
        ({"channels": [[8, 8], [64, 64], [8, 8], [128, 128], [256, 256]]}, "not in space"),
    ):
        with pytest.raises(UserError, match=message.replace("[", r"\[")):
            find_space("tinynas_k1kx", **limits)
    with pytest.raises(UserError, match="unknown search space 'tiny'; known: tinynas_k1kx"):
        find_space("tiny")
    assert set(NAMES) < set(space_names())
