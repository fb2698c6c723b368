"""What follows the network: its price, where a table tells it, and one clear line where it does not."""

from __future__ import annotations

import json
from dataclasses import replace
from math import log
from pathlib import Path

import pytest

import nas
from nas.cost.budget import Budget, Limited
from nas.cost.latency import LatencyTable
from nas.cost.postprocess import FinalRows, PostProcess, Suppression, predictions
from nas.cost.table_file import TABLES
from nas.errors import UserError
from search_spaces.published import load_published

KNOWN = PostProcess(Suppression((10, 1000), (1, 100), ((1.0, 2.0), (3.0, 8.0)), 2.0), FinalRows(0.1, 4.0), 8, 3.0)


def table_with(tmp_path: Path, postprocess: dict[str, object]) -> Path:
    """The T4 table, with what follows."""
    content = json.loads((TABLES / "t4_tensorrt_fp16.json").read_text())
    path = tmp_path / "known.json"
    path.write_text(json.dumps(content | {"postprocess": postprocess}))
    return path


def test_the_price_is_interpolated_between_what_was_timed_and_pairs_come_beside() -> None:
    assert predictions(640) == 80 * 80 + 40 * 40 + 20 * 20 and predictions(32) == 21
    nms = KNOWN.suppression
    assert [nms.of(0, 1, 10), nms.of(0, 100, 10), nms.of(0, 1, 1000), nms.of(0, 100, 1000)] == pytest.approx(
        [1, 2, 3, 8]
    )
    assert nms.of(0, 10, 100) == pytest.approx((1 * 2 * 3 * 8) ** 0.25)  # the middle of all four
    assert nms.of(0, 1, 3) == 1.0 and nms.of(0, 500, 3000) == pytest.approx(8.0)  # outside the ends hold
    assert KNOWN.ms(1, False, 640) == pytest.approx(3 + 2 * 8400 / 1e6)
    assert KNOWN.ms(80, False, 640) == pytest.approx(3 * (8 / 3) ** (log(80) / log(100)) + 2 * 8400 * 80 / 1e6)
    assert KNOWN.ms(1, False, 32) == pytest.approx(3 ** (log(2.1) / log(100)) + 2 * 21 / 1e6)
    assert KNOWN.ms(80, True, 640) == pytest.approx(0.1 + 4 * 300 * 80 / 1e6)
    assert KNOWN.ms(80, True, 32) == pytest.approx(0.1 + 4 * 21 * 80 / 1e6)
    assert Suppression((100,), (80,), ((5.0,),), 0.0).of(9, 3, 7) == pytest.approx(5.0)


def test_a_latency_knows_its_milliseconds_until_boxes(tmp_path: Path) -> None:
    spec, path = load_published("damo-yolo-t"), table_with(tmp_path, KNOWN.body())
    found = nas.latency(spec, path)
    assert found.e2e_ms == found.ms + KNOWN.ms(80, False, 640) and found.ms == nas.latency(spec).ms
    assert found.to_dict()["e2e_ms"] == found.e2e_ms and "until boxes" in str(found)
    without_nms = replace(spec, head=replace(spec.head, one_to_one=True))
    assert nas.latency(without_nms, path).after_ms == KNOWN.ms(80, True, 640)
    assert nas.latency(spec, path, image_size=320).after_ms == KNOWN.ms(80, False, 320)
    assert nas.latency("tinynas_l20_k1kx", path).after_ms is None


def test_a_baseline_is_followed_by_what_its_head_needs(tmp_path: Path) -> None:
    path = table_with(tmp_path, KNOWN.body())
    assert nas.latency("yolo26n", path).after_ms == KNOWN.ms(80, True, 640)


def test_a_table_that_does_not_tell_says_what_to_do() -> None:
    found = nas.latency("damo-yolo-t")
    assert found.after_ms is None and "e2e_ms" not in found.to_dict()
    for asked in (lambda: found.e2e_ms, lambda: nas.find({"e2e_ms": 5.0})):
        with pytest.raises(
            UserError, match=r"^e2e_ms is not known for .* t4_tensorrt_fp16, .* python -m nas.profile .*"
        ):
            asked()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": 0}, "postprocess.points must be"),
        ({"final_rows": {"fixed": -1.0, "pairs": 0.0}}, "postprocess.*fixed must be"),
        ({"suppression": None}, "postprocess.*suppression must be"),
        ({"suppression": KNOWN.body()["suppression"] | {"ms": [[1.0, 2.0]]}}, "must have 2 rows of 2 milliseconds"),
        ({"suppression": KNOWN.body()["suppression"] | {"classes": [100, 1]}}, "classes must be .*ascending"),
        ({"colour": 1}, "postprocess has no colour|colour"),
    ],
)
def test_a_wrong_part_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LatencyTable.load(table_with(tmp_path, KNOWN.body() | change))


def test_it_is_limited_on_any_device_but_not_in_parts() -> None:
    assert str(Limited.of("e2e_ms@mine.json")) == "e2e_ms@mine.json"
    assert Budget.of({"e2e_ms": 25, "latency_ms": 20}).metrics == ("e2e_ms", "latency_ms")
    with pytest.raises(UserError, match="there is no part 'neck'"):
        Limited.of("e2e_ms.neck")
