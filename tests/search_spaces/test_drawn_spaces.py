"""Spaces of stages: GELAN, C3k2 and the mixed one; the published backbones lie inside, and every move stays inside."""

from __future__ import annotations

import csv
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.cost.count import count_spec
from nas.errors import SpecError, UserError
from nas.scorers.entropy import mae
from nas.spec import C2PSA, CSP, GELAN, C3k2, Residual
from search_spaces import find_space, load_published
from search_spaces.c3k2 import BACKBONES as C3K2
from search_spaces.gelan import BACKBONES as GELANS

NAMES = ("gelan", "c3k2", "mixed")
#: Reference layer table and number of its rows that make the backbone.
TABLES = {
    "yolov9-t-backbone": ("yolov9t", 10),
    "yolov9-s-backbone": ("yolov9s", 10),
    "yolov9-m-backbone": ("yolov9m", 10),
    "yolov9-c-backbone": ("yolov9c", 10),
    **{f"yolo11-{size}-backbone": (f"yolo11{size}", 11) for size in "nsmlx"},
}


@pytest.mark.parametrize("name", TABLES)
def test_published_backbones_have_the_published_parameters(name: str, golden: Path) -> None:
    table, rows = TABLES[name]
    with (golden / "baselines" / "layers" / f"{table}.csv").open() as file:
        counts = [int(row["params_train_form"]) for row in csv.DictReader(file)]
    assert count_spec(load_published(name), "train", image_size=640).params == sum(counts[:rows])


def test_published_backbones_are_members() -> None:
    for space, backbones in (("gelan", GELANS), ("c3k2", C3K2)):
        for name, backbone in backbones.items():
            assert find_space(space).violations(backbone) == [], name
            assert load_published(name) == backbone


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_moves_stay_inside(name: str, seed: int) -> None:
    space, rng = find_space(name), random.Random(seed)
    a, b = space.sample(rng), space.sample(rng)
    for spec in (a, b, space.mutate(a, rng), space.mutate(a, rng, "minor"), space.crossover(a, b, rng)):
        assert space.violations(spec) == []


@pytest.mark.parametrize("name", NAMES)
def test_searches_can_start_and_move(name: str) -> None:
    space, rng = find_space(name), random.Random(0)
    assert space.violations(space.initial()) == [] and space.violations(space.smallest()) == []
    small, start = (count_spec(spec, image_size=640).macs for spec in (space.smallest(), space.initial()))
    assert small < start
    mutants = {space.mutate(space.initial(), rng) for _ in range(200)}
    assert len(mutants) > 100
    assert len({mae(spec) for spec in mutants}) > 50


@pytest.mark.parametrize(
    ("name", "stem"), [("gelan", (48, 64)), ("gelan", (32, 64)), ("c3k2", (96, 96)), ("c3k2", (64, 96))]
)
def test_a_wider_stem_widens_what_follows(name: str, stem: tuple[int, int]) -> None:
    space = find_space(name, stem_channels=stem)
    members = [space.initial(), space.smallest(), *(space.sample(random.Random(seed)) for seed in range(20))]
    assert all(space.violations(spec) == [] and stem[0] <= spec.stem.out <= stem[1] for spec in members)


def test_impossible_attention_is_refused() -> None:
    blocks = load_published("yolo11-n-backbone").blocks
    with pytest.raises(SpecError, match="C2PSA keeps the width of its input, 256, got out=384"):
        replace(load_published("yolo11-n-backbone"), blocks=(*blocks[:-1], C2PSA(384)))
    with pytest.raises(SpecError, match="its 3 heads do not divide 200 channels"):
        C2PSA(400)
    with pytest.raises(SpecError, match="C3k2.hidden must be at least 2"):
        C3k2(64, 32, 1, 1)
    with pytest.raises(SpecError, match="C3k2.hidden must be at least 4"):
        C3k2(64, 32, 3, 1, c3k=True)


def test_size_of_a_small_space_by_enumeration() -> None:
    space = find_space("c3k2", stem_channels=(16, 24), channels=((32, 48), (64, 64), (64, 80), (128, 128)), depths=(1,))
    seen = {space.sample(random.Random(seed)) for seed in range(3000)}
    frozen = space.override(kinds=(True,), entries=(1.0,), hiddens=(0.5,), attention=(1,))
    few = {frozen.sample(random.Random(seed)) for seed in range(300)}
    assert frozen.size() == len(few) == 2 * 2 * 1 * 2 * 1
    assert space.size() == 2 * (2 * 8) * 8 * (2 * 8) * 8 * 2 and len(seen) > 2500


def test_stages_of_a_mixed_space_are_those_of_the_pure_ones() -> None:
    """YOLOv9-T's, YOLO11's and DAMO-YOLO-M's kinds of stage, with the ratios of the smallest published networks."""
    space, yolov9 = find_space("mixed"), GELANS["yolov9-t-backbone"].blocks
    assert (
        space.block(1, 64, ("gelan", 3, 1.0, 3)) == yolov9[1] and space.block(3, 128, ("gelan", 3, 1.0, 5)) == yolov9[3]
    )
    assert space.block(2, 128, ("c3k2", 1, 1.0, 3)) == C3k2(128, 128, 64, 1)
    assert space.block(2, 128, ("csp", 2, 0.5, 5)) == CSP(128, 32, 2, 2, 5, "k1kx")
    assert space.block(0, 64, ("kxkx", 2, 0.75, 5)) == Residual("kxkx", 64, 48, 2, 2, 5)
    # Of 5 kinds x 4 depths x 3 shares, three kinds have two kernels.
    assert len(space.blocks(1, 64)) == 4 * 3 * (3 * 2 + 2)
    drawn = [space.sample(random.Random(seed)) for seed in range(200)]
    kinds = [{getattr(block, "kind", type(block).__name__) for block in spec.blocks} for spec in drawn]
    assert sum(len(found) > 2 for found in kinds) > 100


def test_broken_limits_are_named() -> None:
    space, backbone = find_space("gelan"), GELANS["yolov9-s-backbone"]
    wide = replace(backbone, blocks=(*backbone.blocks[:3], replace(backbone.blocks[3], out=648)))
    assert "stage 3: width 648 is not a multiple of 8 in [96, 640]" in space.violations(wide)
    odd = replace(backbone, blocks=(GELAN(64, 64, 64, 36, 0, 2, "conv"), *backbone.blocks[1:]))
    assert "not among the space's choices" in space.violations(odd)[0]
    with pytest.raises(UserError, match="no room"):
        space.override(channels=((128, 256), (32, 64), (64, 512), (96, 640)))
