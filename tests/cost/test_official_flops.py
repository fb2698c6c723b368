"""The official counts: layers, parameters and the FLOP figure are equal to the last digit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nas.cost.count import count_spec
from nas.cost.official import official_flops
from nas.errors import SpecError
from nas.spec import DetectorSpec
from search_spaces import load_published
from search_spaces.official import from_official


def test_golden_structures_are_counted_exactly(golden: Path) -> None:
    records = json.loads((golden / "tinynas" / "structures.json").read_text())
    assert len(records) > 200
    for record in records:
        spec = from_official(record["structure"])
        double = 2 if spec.stem.kind == "focus" else 1
        counts = count_spec(spec, image_size=double * record["image_size"])
        assert (counts.layers, counts.params) == (record["layers"], record["params"]), record["id"]
        for side, flops in record["flops"].items():
            assert official_flops(spec, double * int(side)) == flops, record["id"]


def test_deployed_blocks_have_no_official_figure() -> None:
    spec = load_published("damo-yolo-m")
    assert isinstance(spec, DetectorSpec)
    with pytest.raises(SpecError, match="block 0 is a CSP"):
        official_flops(spec.backbone, 640)
