"""Reading the official structure formats: exact where they are right, one clear line where they are not."""

from __future__ import annotations

import json
from pathlib import Path
from pprint import pformat
from typing import Any

import pytest

from nas.errors import SpecError, UserError
from nas.spec import Plain, Residual, Stem
from search_spaces import load_published
from search_spaces.official import deployed, from_official

STEM = {"class": "ConvKXBNRELU", "in": 12, "out": 32, "s": 1, "k": 3}
BLOCK = {"class": "SuperResK1KX", "in": 32, "out": 48, "s": 2, "k": 3, "L": 2, "btn": 24}


def test_records_become_a_backbone() -> None:
    spec = from_official([STEM, BLOCK])
    assert spec.stem == Stem("focus", 32)
    assert spec.blocks == (Residual("k1kx", 48, 24, 2, 2, 3, "pooled"),)
    plain = from_official(
        [STEM | {"in": 3, "s": 2}, BLOCK, {"class": "ConvKXBNRELU", "in": 48, "out": 96, "s": 1, "k": 1}]
    )
    assert plain.stem == Stem("conv", 32) and plain.blocks[1] == Plain(96)


def test_files_of_both_kinds_and_spellings_agree(tmp_path: Path) -> None:
    quantised = BLOCK | {"class": "SuperResConvK1KX", "nbitsA": [8, 8], "nbitsW": [8, 8], "inner_class": "ResConvK1KX"}
    text, data, best = tmp_path / "a.txt", tmp_path / "a.json", tmp_path / "best_structure.txt"
    text.write_text(pformat([STEM, quantised]))
    data.write_text(json.dumps([STEM, BLOCK]))
    best.write_text(repr({"space_arch": "MasterNet", "best_structures": [[STEM, BLOCK]]}))
    assert from_official(text) == from_official(data) == from_official(str(best)) == from_official([STEM, BLOCK])


def test_damo_yolo_files_say_three_channels_and_mean_focus() -> None:
    assert from_official([STEM | {"in": 3}, BLOCK], focus=True) == from_official([STEM, BLOCK])


def test_text_is_never_executed(tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "evil.txt"
    path.write_text(f"[__import__('pathlib').Path({str(trap)!r}).touch()]")
    with pytest.raises(SpecError, match="neither JSON nor a Python literal"):
        from_official(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ([STEM, BLOCK | {"in": 24}], "block 1 reads 24 channels, but block 0 writes 32"),
        ([STEM, BLOCK | {"class": "SuperQuantResK1DWK1"}], "block 1 has unknown class 'SuperQuantResK1DWK1'"),
        ([STEM, {k: v for k, v in BLOCK.items() if k != "btn"}], "block 1 lacks 'btn'"),
        ([STEM, BLOCK | {"L": "2"}], "block 1: L must be a whole number, got '2'"),
        ([STEM, BLOCK | {"s": 3}], "block 1: Residual.stride must be 1 or 2, got 3"),
        ([STEM, BLOCK | {"L": 0}], "block 1: Residual.depth must be a positive integer"),
        ([STEM, BLOCK | {"kt": 3}], "block 1: unknown key 'kt'"),
        ([STEM, BLOCK | {"g": 2}], "grouped convolutions are not supported"),
        ([STEM | {"in": 4}, BLOCK], "block 0 must read 3 channels"),
        ([STEM | {"s": 2}, BLOCK], "block 0 has stride 2; after Focus it must be 1"),
        ([BLOCK, BLOCK], "block 0 must be a ConvKXBNRELU stem"),
        ([STEM], "holds no structure"),
        ([STEM, 7], "block 1 must be a record"),
        ({"structure": "x"}, "holds no structure"),
    ],
)
def test_errors_name_the_block(structure: Any, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        from_official(structure)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read .*absent.txt"):
        from_official(tmp_path / "absent.txt")
    (tmp_path / "noise.txt").write_bytes(bytes(range(128, 256)))
    with pytest.raises(UserError, match="not a text file"):
        from_official(tmp_path / "noise.txt")


def test_deployed_forms_of_the_official_builders() -> None:
    csp = deployed(load_published("tinynas_l45_kxkx"), "csp")  # type: ignore[arg-type]
    assert [block.depth for block in csp.blocks] == [2, 4, 9, 3]  # type: ignore[union-attr]
    assert csp.out_strides == (8, 16, 32) and csp.out_channels == (128, 256, 512)
    nano = deployed(load_published("tinynas_nano_large"), "mob", focus=False)  # type: ignore[arg-type]
    assert [block.hidden for block in nano.blocks] == [168, 320, 720, 800, 1760]  # type: ignore[union-attr]
    assert nano.stem == Stem("conv", 24)


def test_what_has_no_deployed_form_is_refused() -> None:
    with pytest.raises(SpecError, match="block 0 is InvertedResidual"):
        deployed(load_published("damo-yolo-ns").backbone)  # type: ignore[union-attr]
    with pytest.raises(SpecError, match="its down-sampler would be the whole CSP stage"):
        deployed(load_published("tinynas_l25_k1kx"), "csp")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="block 0 is k1kxk1"):
        deployed(load_published("deepmad-r18"), "csp")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="unknown family"):
        deployed(load_published("deepmad-r18"), "vit")  # type: ignore[arg-type]
