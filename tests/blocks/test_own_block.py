"""A block of one's own is stored, counted, priced, scored, built and traced like those of the package."""

from __future__ import annotations

import math
import pickle
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

import nas
from nas import extensions
from nas.blocks import BLOCK_TYPES, Block, Operation, Plain
from nas.errors import SpecError, UserError
from nas.files import load_spec, save_spec
from nas.lowering import operations
from nas.measure.trace import trace_operations
from nas.spec import Backbone, DetectorSpec, HeadSpec, NeckSpec, Residual, Stem, digest, from_dict, to_dict
from tests.blocks.shuffle import Shuffle, ShuffleStage

REFERENCE = "tests.blocks.shuffle:Shuffle"


def backbone(spp: str = "none") -> Backbone:
    blocks = (Residual("k1kx", 16, 8, 1, 2), Shuffle(32, 2, 2), Shuffle(32), Shuffle(64, 2), Shuffle(96, 2, 1))
    return Backbone(Stem("conv", 16), blocks, (2, 3, 4), spp)  # type: ignore[arg-type]


def detector() -> DetectorSpec:
    return DetectorSpec(backbone("spp"), NeckSpec((32, 64, 96), 1), HeadSpec(3), 128)


def kernels(listed: Iterable[Operation]) -> Counter[Operation]:
    """Operations without what a trace cannot know."""
    return Counter(replace(op, norm=False, bias=False, branch="", scalars=0) for op in listed)


def test_yaml_names_the_class_and_brings_it_back(tmp_path: Path) -> None:
    spec = detector()
    assert to_dict(Shuffle(32, 2)) == {"type": REFERENCE, "out": 32, "stride": 2, "extra": None}
    path = save_spec(tmp_path / "own.yaml", spec)
    assert f"{{type: '{REFERENCE}', out: 32, stride: 2, extra: 2}}" in path.read_text()
    assert load_spec(path) == nas.load(path) == spec and digest(load_spec(path)) == digest(spec)
    assert pickle.loads(pickle.dumps(spec)) == spec and hash(load_spec(path)) == hash(spec)


def test_a_file_imports_nothing_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_spec(tmp_path / "own.yaml", detector())
    monkeypatch.delitem(sys.modules, "tests.blocks.shuffle")
    words = rf"own.yaml: spec.backbone.blocks\[1\] needs block {REFERENCE}: .*use=\[tests.blocks.shuffle\]"
    with pytest.raises(SpecError, match=words):
        nas.load(path)
    assert "tests.blocks.shuffle" not in sys.modules
    assert type(nas.load(path, use=["tests.blocks.shuffle"]).backbone.blocks[1]).__name__ == "Shuffle"


def test_an_installed_entry_point_is_allowed_by_its_value_and_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    data = to_dict(backbone())
    monkeypatch.delitem(sys.modules, "tests.blocks.shuffle")
    point = EntryPoint("shuffle", REFERENCE, "maenas.blocks")
    monkeypatch.setattr(extensions, "entry_points", lambda group: [point] if group == point.group else [])
    named = data | {
        "blocks": [block | {"type": block["type"].replace(REFERENCE, "shuffle")} for block in data["blocks"]]
    }
    assert to_dict(from_dict(data)) == to_dict(from_dict(named)) == data


def test_what_is_no_block_is_refused() -> None:
    data = to_dict(backbone())
    for kind, words in (
        ("os:system", "os:system is no block"),
        ("nas.spec:Stem", "is no block"),
        ("nas.blocks.base:Block", "is no block"),
        ("tests.blocks.shuffle:Shuffled", "has no Shuffled"),
        ("Cube", "unknown block type 'Cube'; known: Plain, .*module:class"),
        (["Plain"], "unknown block type"),
    ):
        with pytest.raises(SpecError, match=words):
            from_dict(data | {"blocks": [{"type": kind, "out": 8}]})
    with pytest.raises(SpecError, match=r"blocks\[0\]: unknown field 'module' of Shuffle; known: out, stride, extra"):
        from_dict(data | {"blocks": [{"type": REFERENCE, "out": 8, "module": "os:system"}], "out_blocks": [0]})
    with pytest.raises(SpecError, match=r"blocks\[0\]\.extra must be int, got 'many'"):
        from_dict(data | {"blocks": [{"type": REFERENCE, "out": 8, "extra": "many"}], "out_blocks": [0]})
    with pytest.raises(SpecError, match=r"blocks\[0\] is a Stem: a block derives from nas.blocks.Block"):
        Backbone(Stem("conv", 8), (Stem("conv", 8),), (0,))  # type: ignore[arg-type]

    class Bare(Block):
        out, stride = 8, 1

        def operations(self, *_: object) -> list[Operation]:
            return []

    with pytest.raises(SpecError, match="is a Bare: .* and has out, stride and depth"):
        Backbone(Stem("conv", 8), (Bare(),), (0,))


def test_it_is_counted_priced_and_scored() -> None:
    bare = backbone()
    counts = nas.count(bare, image_size=128)
    first = 16 * 9 * 16 + 2 * 16 * 16 + 2 * 3 * 16  # the weights and BNs of blocks[1]: 16 -> 16, then twice 1x1 on 16
    assert sum(op.params for op in bare.blocks[1].operations(16, (32, 32), "relu", False)) == first
    assert counts.layers == 1 + 2 + 3 + 1 + 1 + 2
    # MAE by hand: the sum of ln fan-in up to each level's end, and the width there, of stem, C2, C3, C4, C5.
    fans = [[27], [16, 8 * 9], [16 * 9, 16, 16, 32 * 9], [32 * 9], [64 * 9, 48]]
    running = [sum(0.5 * math.log(fan) for level in fans[: i + 1] for fan in level) for i in range(5)]
    widths = [16, 16, 32, 64, 96]
    expected = sum(w * (math.log(c) + g) for w, c, g in zip((0, 0, 1, 1, 16), widths, running, strict=True))
    assert nas.score(bare, "mae") == pytest.approx(expected, rel=1e-12)
    assert nas.latency(detector()).ms > nas.latency(replace(detector(), image_size=64)).ms > 0


@pytest.mark.parametrize("spp", ["none", "spp", "sppf", "sppelan"])
def test_the_built_module_runs_exactly_its_operations(spp: str) -> None:
    spec = backbone(spp)
    module = nas.build(spec).eval()
    assert kernels(trace_operations(module, 128)) == kernels(operations(spec, "folded", 128))
    with torch.no_grad():
        maps = module(torch.zeros(1, 3, 128, 128))
    assert [tuple(x.shape[1:]) for x in maps] == [(32, 16, 16), (64, 8, 8), (96, 4, 4)]


def test_merging_and_folding_keep_a_detector_of_it() -> None:
    torch.manual_seed(0)
    model = nas.build(detector()).eval()
    images = torch.rand(1, 3, 128, 128) * 255
    with torch.no_grad():
        before = model(images)
        after = model.fuse()(images)
    assert not any("running_mean" in name for name in model.state_dict())
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_a_block_may_build_itself_and_one_that_cannot_says_so() -> None:
    @dataclass(frozen=True, slots=True)
    class Built(Shuffle):
        def build(self, in_channels: int, activation: str, reparam: bool, **spp: object) -> ShuffleStage:
            return ShuffleStage(self, in_channels, activation, reparam)

    @dataclass(frozen=True, slots=True)
    class Unbuilt(Shuffle):
        module = ""

    assert isinstance(Built(32).build(8, "silu", False), ShuffleStage)
    with pytest.raises(UserError, match="Unbuilt has no torch module: give its class module"):
        Unbuilt(32).build(8, "relu", False)
    with pytest.raises(TypeError, match="abstract"):
        Block()  # type: ignore[abstract]


def test_the_built_in_blocks_are_named_as_ever() -> None:
    assert list(BLOCK_TYPES) == ["Plain", "Residual", "InvertedResidual", "CSP", "GELAN", "C3k2", "C2PSA"]
    assert to_dict(Plain(8)) == {"type": "Plain", "out": 8, "kernel": 1, "stride": 1}
    assert repr(Plain(8)) == "Plain(out=8, kernel=1, stride=1)" and not hasattr(Plain(8), "__dict__")
    mine = type("Plain", (Shuffle,), {"__module__": "elsewhere", "__slots__": ()})
    assert to_dict(mine(8))["type"] == "elsewhere:Plain"
