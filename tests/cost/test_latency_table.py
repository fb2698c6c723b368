"""Table files are read strictly, and prices are remembered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nas
from nas.blocks.operation import Operation
from nas.cost.kernel_model import KernelModel
from nas.cost.latency import LatencyTable
from nas.cost.table_file import TABLES, find_table, read_table, shipped, write_table
from nas.errors import UserError
from nas.frame import Frame
from nas.report.search import network_parts
from nas.searchers.problem import Objective

CONV = Operation("conv", 64, 64, 40, 40, 40, 40, 3)


@pytest.fixture
def content() -> dict:
    return json.loads((TABLES / "t4_tensorrt_fp16.json").read_text())


def refused(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        LatencyTable.load(path)
    assert "\n" not in str(caught.value)


def test_every_shipped_table_loads_and_says_where_it_comes_from() -> None:
    assert {"t4_tensorrt_fp16", "t4_tensorrt7_fp16"} <= set(shipped())
    for name in shipped():
        table = LatencyTable.load(name)
        assert table.name == name and table.header.units == "ms" and table.header.provenance
        assert table.price(CONV).ms > 0


@pytest.mark.parametrize(
    "key",
    [
        "device",
        "runtime",
        "precision",
        "batch",
        "units",
        "provenance",
        "validation",
        "kind",
        "processor",
        "image_sizes",
        "map_sizes",
    ],
)
def test_a_missing_header_field_is_named(tmp_path: Path, content: dict, key: str) -> None:
    del content[key]
    refused(tmp_path / "table.json", json.dumps(content), f"table.json lacks {key}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": "s"}, "units must be ms"),
        ({"units": ""}, "units must be ms"),
        ({"batch": 0}, "batch must be a whole number from 1"),
        ({"batch": True}, "batch must be a whole number"),
        ({"kind": "guess"}, "kind must be one of"),
        ({"format": "other/1"}, "format must be"),
        ({"processor": ""}, "processor must be text that is not empty"),
        ({"image_sizes": []}, "image_sizes must be a list of at least 1"),
        ({"image_sizes": [640, 320]}, "image_sizes must be .* pixels, smallest first"),
        ({"map_sizes": [True, 320]}, "map_sizes\\[0\\] must be a whole number"),
        ({"map_sizes": [5]}, "map_sizes must be a list of 2"),
        ({"parameters": []}, "parameters must be a mapping"),
        ({"hardware": {}}, "hardware lacks multiprocessors"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, content: dict, change: dict, message: str) -> None:
    refused(tmp_path / "table.json", json.dumps(content | change), message)


def test_truncated_binary_and_unknown_files(tmp_path: Path, content: dict) -> None:
    refused(tmp_path / "table.json", json.dumps(content)[:-20], "not a complete JSON file")
    refused(
        tmp_path / "table.json", json.dumps(content).replace("3.0", "NaN", 1), "not a complete JSON|must be a number"
    )
    (tmp_path / "noise.json").write_bytes(b"\xff\xfe\x00\x80" * 9)
    with pytest.raises(UserError, match="not a text file"):
        LatencyTable.load(tmp_path / "noise.json")
    with pytest.raises(UserError, match="t4_tensorrt_fp16"):
        LatencyTable.load("gtx_1080")


def test_another_batch_precision_or_device_is_refused() -> None:
    with pytest.raises(UserError, match="batch 1, not 8"):
        LatencyTable.load("t4_tensorrt_fp16", batch=8)
    header = LatencyTable.load("t4_tensorrt_fp16").header
    header.require(batch=1, precision="fp16", device="NVIDIA T4")
    with pytest.raises(UserError, match="precision fp16, not int8"):
        header.require(precision="int8")


def test_written_tables_read_back(tmp_path: Path) -> None:
    header, body = read_table(find_table("t4_tensorrt_fp16"))
    path = tmp_path / "t4_tensorrt_fp16.json"
    write_table(path, header, {"hardware": body["hardware"], "parameters": body["parameters"]})
    assert read_table(path) == (header, body)
    assert LatencyTable.load(path).digest == LatencyTable.load("t4_tensorrt_fp16").digest


def test_totals_explain_themselves() -> None:
    table = LatencyTable.load("t4_tensorrt_fp16")
    block = (CONV, CONV)
    latency = table.total(block)
    assert float(latency) == latency.ms == table.offset_ms + sum(price.ms for price in table.price_many(block))
    assert [row.operation for row in latency.explain()] == [CONV, CONV]
    assert latency.explain()[0].price.how == "model"
    assert latency.error_percent is not None and f"± {latency.ms * latency.error_percent / 100:.2f} ms" in str(latency)


def test_a_table_of_batches_gives_milliseconds_per_image_everywhere(tmp_path: Path, content: dict) -> None:
    path = tmp_path / "t4_batch_8.json"
    path.write_text(json.dumps(content | {"name": "t4_batch_8", "batch": 8}))
    pricer = KernelModel.from_body(content, 8, "table")
    table = LatencyTable.load(path)
    assert table.price(CONV).ms == pytest.approx(pricer.price_many([CONV])[0].ms / 8)
    assert table.offset_ms == pytest.approx(pricer.offset_ms / 8)
    spec = nas.load("damo-yolo-t")
    latency = nas.latency(spec, path)
    assert latency.ms == pytest.approx(table.offset_ms + sum(row.price.ms for row in latency.explain()))
    assert float(latency) < float(nas.latency(spec)) and "ms per image (t4_batch_8, batch 8)" in str(latency)
    searched = Objective(None, table, Frame(out=spec.neck.out, hidden_ratio=spec.neck.hidden_ratio))
    assert searched.evaluate(spec.backbone)["latency_ms"] == pytest.approx(latency.ms, rel=1e-12)
    assert sum(part.ms for part in network_parts(spec, 640, table)) == pytest.approx(latency.ms)
