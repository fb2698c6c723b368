"""The published architectures: all there, exactly sized, and honest about the limits they break."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.write_published import write_published
from nas.cost.count import count_spec
from nas.errors import UserError
from nas.spec import Backbone, DetectorSpec
from search_spaces import find_space, load_published, published_names
from search_spaces.c3k2 import BACKBONES as C3K2
from search_spaces.gelan import BACKBONES as GELANS
from search_spaces.official import deployed
from search_spaces.published import FOLDER, is_published, published_document

DETECTORS = [f"damo-yolo-{size}" for size in ("t", "s", "m", "l", "ns", "nm", "nl", "n")]

#: training form, branches merged, BN folded: counted on the official modules.
PARAMS = {
    "t": (8_875_727, 8_479_631, 8_473_911),
    "s": (16_935_647, 16_251_631, 16_242_751),
    "m": (29_241_727, 28_178_175, 28_164_063),
    "l": (43_861_759, 42_058_111, 42_039_711),
    "ns": (1_405_691, 1_405_691, 1_392_299),
    "nm": (2_707_219, 2_707_219, 2_688_371),
    "nl": (5_688_579, 5_688_579, 5_659_451),
}
#: conv MACs at 640 of the training and the merged form, in units of a million.
MACS = {
    "t": (9491, 9004),
    "s": (19827, 18808),
    "m": (31938, 30811),
    "l": (50642, 48558),
    "ns": (1772, 1772),
    "nm": (4239, 4239),
    "nl": (6993, 6993),
}


def test_all_announced_structures_are_there() -> None:
    deepmad = {f"deepmad-{size}" for size in ("r18", "r34", "r50", "29m-224", "29m-288", "50m", "89m")}
    searched = {"tinynas_l20_k1kx", "tinynas_l25_k1kx", "tinynas_l35_kxkx", "tinynas_l45_kxkx", "tinynas_l20_k1kx_nano"}
    nano = {f"tinynas_nano_{size}" for size in ("small", "middle", "large")}
    mae_det = {f"mae-det-{size}" for size in "sml"}
    drawn = {*GELANS, *C3K2}
    assert set(published_names()) >= {*DETECTORS} | deepmad | searched | nano | mae_det | drawn


@pytest.mark.parametrize("name", published_names())
def test_a_file_breaks_what_it_says_it_breaks(name: str) -> None:
    spec, known = published_document(name)
    source = known["provenance"].get("searched", name)
    searched = load_published(source)
    assert isinstance(searched, Backbone)
    assert "; ".join(find_space(known["provenance"]["space"]).violations(searched)) == known.get("breaks", "")
    if isinstance(spec, DetectorSpec):
        assert spec.backbone == deployed(searched, known["provenance"]["family"], spec.backbone.stem.kind == "focus")


def test_published_structures_inside_their_official_limits() -> None:
    inside = {name for name in published_names() if "breaks" not in published_document(name)[1]}
    assert inside >= {"tinynas_l20_k1kx", "tinynas_l35_kxkx", "damo-yolo-t", "damo-yolo-m", "deepmad-r50"}
    assert published_document("tinynas_l25_k1kx")[1]["breaks"] == "block 1: depth 5 exceeds 3"
    assert find_space("tinynas_k1kx").violations(load_published("damo-yolo-t").backbone) == []  # type: ignore[union-attr]


@pytest.mark.parametrize("size", PARAMS)
def test_detectors_have_the_official_size(size: str) -> None:
    spec = load_published(f"damo-yolo-{size}")
    assert tuple(count_spec(spec, form).params for form in ("train", "merged", "folded")) == PARAMS[size]
    macs = [count_spec(spec, form, image_size=640).macs / 1e6 for form in ("train", "merged")]
    assert macs == pytest.approx(MACS[size], abs=1.0)


def test_names_are_forgiving_and_wrong_ones_helpful() -> None:
    for spelling in ("DAMO-YOLO-S", "damo_yolo_s", "DamoYOLO-S", "tinynas_L25_S", "TinynasL25_S"):
        assert load_published(spelling) == load_published("damo-yolo-s") and is_published(spelling)
    assert load_published("TinyNAS_L25_k1kx").blocks[1].depth == 5  # type: ignore[union-attr]
    assert not is_published("yolov9-c")
    with pytest.raises(UserError, match="did you mean one of: .*damo-yolo-s"):
        load_published("damo-yolo-x")


def test_files_are_what_the_script_writes(shared: Path, tmp_path: Path) -> None:
    names = write_published(shared / "golden" / "tinynas" / "published.json", tmp_path)
    assert set(names) <= set(published_names())
    for name in names:
        written = (tmp_path / f"{name}.yaml").read_bytes()
        assert written == (FOLDER / f"{name}.yaml").read_bytes()
