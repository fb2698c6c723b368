"""The MAE and DeepMAD scores: the official figures, the sampled quantity behind the formula, and what they ignore."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.cost.count import effectiveness
from nas.errors import UserError
from nas.lowering import backbone_operations, block_operations, operations
from nas.scorers import SCORERS, find_scorer, score_spec
from nas.scorers.counts import chance
from nas.scorers.deepmad import deepmad
from nas.scorers.entropy import Entropy, log_gain, mae
from nas.scorers.formula import counted_depths
from nas.scorers.learned import SHIPPED
from nas.spec import Backbone, DetectorSpec, Residual, Stem
from search_spaces import load_published
from search_spaces.official import from_official
from search_spaces.tinynas import SPACES


@cache
def records(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())


def image_of(record: dict[str, Any]) -> int:
    """The image's side: records give that of the map behind Focus."""
    return record["image_size"] * (2 if record["structure"][0]["in"] == 12 else 1)


def test_scores_equal_the_official_figures(golden: Path) -> None:
    for record in records(golden / "tinynas" / "structures.json"):
        spec, official = from_official(record["structure"]), record["mae"]
        assert mae(spec, official["weights"]) == pytest.approx(official["score"], rel=1e-12), record["id"]
        if "deepmad" in record:
            official, side = record["deepmad"], image_of(record)
            score = deepmad(spec, official["weights"], image_size=side, squeeze_excite_flaw=True)
            assert score == pytest.approx(official["score"], rel=1e-12), record["id"]
            assert effectiveness(spec, side) == pytest.approx(official["rho"], rel=1e-12), record["id"]


def test_slices_are_the_full_records(shared: Path, golden: Path) -> None:
    full = {
        record["id"]: record
        for path in sorted((shared / "golden" / "tinynas").glob("*.json"))
        for record in json.loads(path.read_text())["records"]
    }
    for record in records(golden / "tinynas" / "structures.json"):
        official = full[record["id"]]
        assert record["structure"] == official["structure"] and record["params"] == official["params"]
        assert record["mae"]["score"] == official["madnas"]["score"] and record["flops"] == official["flops"]


def test_score_of_a_unit_by_hand() -> None:
    """k1kx: ln(in * btn * k^2) / 2, once more with in = out for the second unit; the stem reads 12 channels."""
    spec = Backbone(Stem("focus", 32), (Residual("k1kx", 64, 24, 2, 2, 3, "pooled"),), (0,))
    stem = 0.5 * math.log(12 * 9)
    block = 0.5 * math.log(32 * 24 * 9) + 0.5 * math.log(64 * 24 * 9)
    assert mae(spec, (0.5, 2.0)) == pytest.approx(0.5 * (math.log(32) + stem) + 2 * (math.log(64) + stem + block))


def test_score_is_the_sum_that_a_search_adds_up() -> None:
    space, rng, linear = SPACES["tinynas_k1kx"], Random(2), Entropy().linear()
    assert linear.gains == (18.0, 18.0, 18.0, 17.0, 16.0) and linear.widths == (0.0, 0.0, 1.0, 1.0, 16.0)
    for _ in range(20):
        spec = space.sample(rng)
        groups = zip(backbone_operations(spec, 640), (0, *spec.levels), strict=True)
        total = sum(linear.gains[level] * log_gain(group) for group, level in groups)
        ends = {level: block.out for block, level in zip(spec.blocks, spec.levels, strict=True)}
        total += sum(linear.widths[level] * math.log(width) for level, width in ends.items())
        assert mae(spec) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("name", ["tinynas_k1kx", "tinynas_kxkx", "tinynas_k1kxk1", "tinynas_k1dwsek1"])
def test_formula_is_what_sampling_measures(name: str) -> None:
    """Gaussian weights and image, no BN, activation or shortcut: log-stds of the maps, convolution by convolution.

    Circular padding keeps every fan-in whole, as the formula assumes.
    """
    spec = SPACES[name].override(channels=((24, 96),) * 5).sample(Random(4))
    torch.manual_seed(0)
    channels = 12 if spec.stem.kind == "focus" else 3
    signal = torch.randn(1, channels, 48, 48)
    gain = 0.0
    for op in operations(spec, image_size=128):
        if op.role not in ("stem", "main") or op.kind != "conv":
            continue
        weight = torch.randn(op.out_channels, op.in_channels // op.groups, op.kernel, op.kernel)
        signal, log = _convolved(signal, weight, 1, op.groups)
        gain += log
    width = spec.blocks[-1].out
    assert gain + math.log(width) == pytest.approx(mae(spec, (0, 0, 0, 0, 1)), rel=0.01)


def _convolved(signal: Tensor, weight: Tensor, stride: int, groups: int = 1) -> tuple[Tensor, float]:
    """The map scaled to unit std, and the log-std that was taken out."""
    pad = weight.shape[-1] // 2
    padded = F.pad(signal, (pad,) * 4, mode="circular") if pad else signal
    result = F.conv2d(padded, weight, stride=stride, groups=groups)
    return result / result.std(), float(result.std().log())


def test_score_ignores_resolution_shortcuts_and_pyramids() -> None:
    spec = load_published("damo-yolo-t")
    assert isinstance(spec, DetectorSpec)
    bare = replace(spec.backbone, spp="none", reparam=False, activation="silu")
    assert mae(spec) == mae(bare) == mae(load_published("tinynas_l20_k1kx")) == pytest.approx(1015.1441063)
    assert mae(load_published("tinynas_l25_k1kx")) == pytest.approx(1380.5875249)


def test_csp_score_takes_the_longest_path() -> None:
    """Down-sampler, entry, units and fusion; the 1x1 beside them does not count."""
    spec = load_published("damo-yolo-m")
    assert isinstance(spec, DetectorSpec)
    block = spec.backbone.blocks[0]
    units = 0.5 * math.log(64 * 9 * 64 * 9)
    path = 0.5 * (math.log(32 * 9) + math.log(128) + math.log(128)) + units
    assert log_gain(block_operations(block, 32, 64, 64)) == pytest.approx(path)


def test_deepmad_penalty_and_flaw() -> None:
    r50, small = load_published("deepmad-r50"), load_published("deepmad-29m-224")
    assert isinstance(r50, Backbone) and isinstance(small, Backbone)
    assert counted_depths(r50) == [12, 13, 15]  # the first two of 1, 11, 12, 13, 15 are left out
    spread = math.sqrt(sum((d - 40 / 3) ** 2 for d in (12, 13, 15)) / 3)
    penalty = deepmad(r50, image_size=224) - deepmad(r50, image_size=224, depth_penalty=10)
    assert penalty == pytest.approx(10 * math.exp(spread))
    assert deepmad(small, image_size=224) > deepmad(small, image_size=224, squeeze_excite_flaw=True)
    assert deepmad(r50, image_size=224) == deepmad(r50, image_size=224, squeeze_excite_flaw=True)
    assert deepmad(r50, alpha1=0.5, image_size=224) < deepmad(r50, image_size=224)


def test_effectiveness_of_published_nets_sits_at_its_limit() -> None:
    for name, side, limit in (("deepmad-r18", 224, 0.3), ("deepmad-r50", 224, 0.3), ("deepmad-29m-288", 288, 0.5)):
        spec = load_published(name)
        assert isinstance(spec, Backbone) and limit - 0.01 < effectiveness(spec, side) < limit + 0.001


def test_scorers_by_name_and_their_errors() -> None:
    spec = load_published("damo-yolo-t")
    for name, scorer in SCORERS.items():
        assert scorer.name == name and callable(scorer.function) and scorer.source
        if scorer.needs == "spec" and (
            name != "learned" or SHIPPED.is_file()
        ):  # the bench must hold enough for it first
            assert math.isfinite(score_spec(spec, name))
    assert score_spec(spec, "layers") == 19 and score_spec(spec, "params") == pytest.approx(8.479631)
    with pytest.raises(UserError, match="unknown scorer 'mea'; known: mae"):
        find_scorer("mea")
    with pytest.raises(UserError, match="scorer mae has no option 'weights'; did you mean level_weights"):
        score_spec(spec, "mae", weights=(1,))
    with pytest.raises(UserError, match="5 levels .* got 2 level weights"):
        score_spec(spec, "mae", level_weights=(1, 1))


def test_chance_is_uniform_repeatable_and_seeded() -> None:
    space, rng = SPACES["tinynas_k1kx"], Random(0)
    specs = [space.sample(rng) for _ in range(400)]
    values = [chance(spec) for spec in specs]
    assert values == [chance(spec) for spec in specs] != [chance(spec, seed=1) for spec in specs]
    assert 0.45 < sum(values) / 400 < 0.55 and min(values) >= 0 and max(values) < 1
