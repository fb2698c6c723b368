"""Backbone and neck searched together: closed under moves, counted, one budget for both."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.cost.count import count_spec
from nas.errors import SpecError, UserError
from nas.scorers.neck_entropy import mae_neck
from nas.spec import DetectorSpec
from search_spaces import find_space
from search_spaces.giraffe import SPACES


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), mode=st.sampled_from(["coarse", "minor"]))
def test_moves_stay_in_the_space(name: str, seed: int, mode: str) -> None:
    space, rng = SPACES[name], Random(seed)
    a, b = space.sample(rng), space.initial()
    for _ in range(5):
        b = space.mutate(b, rng, mode)  # type: ignore[arg-type]
        assert space.violations(b) == []
    child = space.crossover(a, b, rng)
    assert space.violations(a) == [] == space.violations(child)
    assert DetectorSpec(*(getattr(child, item.name) for item in fields(DetectorSpec))) == child


def test_neck_and_backbone_both_move() -> None:
    space, rng = SPACES["giraffe"], Random(0)
    spec, seen = space.initial(), set()
    for _ in range(400):
        child = space.mutate(spec, rng)
        seen |= {
            name for name in ("out", "depth", "hidden_ratio") if getattr(child.neck, name) != getattr(spec.neck, name)
        }
        seen |= {"backbone"} if child.backbone != spec.backbone else set()
        spec = child
    assert seen == {"backbone", "out", "depth", "hidden_ratio"}


def test_size_counts_necks_exactly() -> None:
    space = find_space(
        "giraffe", neck_channels=[[32, 48], [32, 64], [40, 64]], start_neck=[32, 32, 40], neck_depth=[1, 2]
    )
    grid = product(range(32, 49, 8), range(32, 65, 8), range(40, 65, 8))
    necks = sum(a <= b <= c for a, b, c in grid) * 2 * 3**3
    assert space.size() == space.backbone.size() * necks  # type: ignore[attr-defined]


def test_light_space_puts_its_compute_in_the_neck() -> None:
    """Space-to-depth under a heavy neck: at the same budget names, most multiply-accumulates are the neck's."""
    space, rng = SPACES["giraffe_light"], Random(1)
    shares = []
    for _ in range(50):
        spec = space.sample(rng)
        shares.append(1 - count_spec(spec.backbone, image_size=640).macs / count_spec(spec).macs)
    assert sorted(shares)[25] > 0.6
    assert space.initial().backbone.stem.kind == "focus"


def test_heavier_necks_cost_and_score_more() -> None:
    space = SPACES["giraffe"]
    spec = space.initial()
    deeper = replace(spec, neck=replace(spec.neck, depth=spec.neck.depth + 1))
    assert space.contains(deeper)
    assert count_spec(deeper).macs > count_spec(spec).macs and mae_neck(deeper) > mae_neck(spec)


def test_smallest_member_and_what_is_full() -> None:
    for space in SPACES.values():
        least, rng = space.smallest(), Random(2)
        assert space.violations(least) == [] and space.reached(least) == []
        assert all(count_spec(space.sample(rng)).macs > count_spec(least).macs for _ in range(5))
        full = replace(least, neck=replace(least.neck, depth=space.neck_depth[1], out=(128, 256, 512)))
        lines = [f"neck_depth {space.neck_depth[1]}", "neck_channels [128, 256, 512]"]
        assert space.reached(full) == lines and space.reached(full.backbone) == []


def test_violations_and_overrides_name_the_limit() -> None:
    space = SPACES["giraffe"]
    spec = space.initial()
    cases = {
        "neck width N3 20": replace(spec, neck=replace(spec.neck, out=(20, 96, 192))),
        "neck width N4 64 is below": replace(spec, neck=replace(spec.neck, out=(72, 64, 192))),
        "neck depth 9": replace(spec, neck=replace(spec.neck, depth=9)),
        "hidden ratio 0.6": replace(spec, neck=replace(spec.neck, hidden_ratio=(0.6, 0.5, 0.5))),
        "activation, fusion or edges": replace(spec, neck=replace(spec.neck, extra_up=True)),
        "the head or the image size": replace(spec, image_size=416),
        "backbone: stem width 20": replace(
            spec, backbone=replace(spec.backbone, stem=replace(spec.backbone.stem, out=20))
        ),
    }
    for text, broken in cases.items():
        assert any(text in line for line in space.violations(broken)), text
        with pytest.raises(SpecError, match="not in space giraffe"):
            space.check(broken)
    assert space.violations(spec.backbone) != []  # type: ignore[arg-type]
    assert find_space("giraffe", backbone={"max_layers": 19}).backbone.max_layers == 19  # type: ignore[attr-defined]
    for limits, message in (
        ({"backbone": {"depth": 3}}, "space.backbone has no option 'depth'; did you mean depths"),
        ({"neck_depth": [3, 1]}, "space.neck_depth must be .* lowest first"),
        ({"neck_channels": [[30, 60]] * 3}, "multiples of 8"),
        ({"neck_depth": "deep"}, "space.neck_depth must be a list of 2"),
    ):
        with pytest.raises(UserError, match=message):
            find_space("giraffe", **limits)
