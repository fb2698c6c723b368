"""Counts of specs: one convention, forms, and rho."""

from __future__ import annotations

import math

import pytest
from torch import nn

import nas
from nas.blocks.operation import FORMS
from nas.cost.count import count_spec, effectiveness
from nas.errors import UserError
from nas.spec import Backbone, Plain, Residual, Stem


def tiny(depth: int = 1) -> Backbone:
    return Backbone(Stem("conv", 8), (Residual("k1kx", 16, 8, depth, 2), Plain(32)), (1,))


def test_counts_of_a_network_that_can_be_done_by_hand() -> None:
    counts = count_spec(tiny(), image_size=32)
    # stem 3x3x3->8 at 16, 1x1 8->8 at 16, 3x3 8->16 at 8, 1x1 16->32 at 8; BN has 2 per channel
    assert counts.params == (216 + 16) + (64 + 16) + (1152 + 32) + (512 + 64)
    assert counts.macs == 216 * 256 + 64 * 256 + 1152 * 64 + 512 * 64
    assert counts.flops == 2 * counts.macs
    assert counts.activations == 8 * 256 + 8 * 256 + 16 * 64 + 32 * 64
    assert counts.layers == 4


def test_rho_is_depth_over_the_geometric_mean_fan_in_of_the_worst_level() -> None:
    ends = [(1, [27]), (4, [27, 8, 72, 16])]
    expected = max(depth * math.exp(-sum(map(math.log, fans)) / depth) for depth, fans in ends)
    assert effectiveness(tiny(), 32) == pytest.approx(expected)


def test_folding_replaces_two_numbers_a_channel_by_one() -> None:
    merged, folded = count_spec(tiny(), "merged", 32), count_spec(tiny(), "folded", 32)
    assert merged.params - folded.params == 8 + 8 + 16 + 32
    assert merged.macs == folded.macs


def test_published_names_and_values_count_alike() -> None:
    assert nas.count("damo-yolo-s") == nas.count(nas.load("damo-yolo-s"))
    assert nas.count("damo-yolo-s").params == 16_251_631
    assert nas.count("damo-yolo-s").layers == 25


def test_an_unknown_form_is_refused_whatever_is_counted() -> None:
    for source in (tiny(), "damo-yolo-t", "yolo11n", nn.Conv2d(3, 8, 1)):
        with pytest.raises(UserError, match="unknown form 'foo'; known: train, merged, folded"):
            nas.count(source, "foo", 32)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown form 'foo'"):
        count_spec(tiny(), "foo", 32)  # type: ignore[arg-type]


def test_a_module_is_counted_in_the_form_that_is_asked_for() -> None:
    model, spec = nas.build("damo-yolo-t"), "damo-yolo-t"
    for form in FORMS:
        module, own = (nas.count(source, form, 64) for source in (model, spec))  # type: ignore[arg-type]
        assert (module.params, module.macs, module.activations) == (own.params, own.macs, own.activations)
    assert nas.count(model, image_size=64).params == nas.count(spec, "train", 64).params, "as it stands"
    assert (
        nas.count("yolo11n", image_size=64) == nas.count("yolo11n", "folded", 64) != nas.count("yolo11n", "train", 64)
    )
    with pytest.raises(UserError, match="merged form of BaselineDetector is unknown"):
        nas.count("yolo11n", "merged")


def test_a_module_without_a_form_of_its_own_still_folds() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    assert nas.count(module, image_size=32).params == 216 + 16 == nas.count(module, "train", 32).params
    assert nas.count(module, "folded", 32).params == 216 + 8
