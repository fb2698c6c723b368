"""Exported files find what torch finds, say what they are, and are refused when they do not."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import onnx
import pytest
import torch

import nas.deploy.export as export_module
from nas.data.images import to_rgb
from nas.deploy import ExportSettings, load_runtime
from nas.deploy.export import export_model
from nas.deploy.onnx_graph import append_nms, decoding_nodes, export_onnx, layer_of, set_metadata, write
from nas.deploy.openvino import export_openvino
from nas.deploy.parity import TOLERANCES, verify
from nas.deploy.precision import float_nodes, quantise, to_half
from nas.deploy.runtime import Metadata, read_metadata
from nas.detector import Detector
from nas.errors import UserError
from nas.inference.postprocess import postprocess

SIDE = 64


@pytest.fixture(scope="module")
def graph(fused):
    return export_onnx(fused, SIDE)


def metadata(**changes) -> Metadata:
    return dataclasses.replace(Metadata(("cell", "plate", "dust"), SIDE), **changes)


def saved(graph, path, **changes):
    set_metadata(graph, metadata(**changes))
    return load_runtime(write(graph, path))


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 3])
def test_onnx_equals_torch_for_any_batch(graph, fused, pictures, tmp_path, batch):
    runtime = saved(graph, tmp_path / "model.onnx")
    images = np.concatenate(pictures[:batch])
    scores, boxes = runtime(torch.from_numpy(images))
    expected = fused(torch.from_numpy(images))
    assert (scores - expected[0]).abs().max() < 1e-4 and (boxes - expected[1]).abs().max() < 1e-2
    assert (runtime.classes, runtime.image_size, runtime.end_to_end) == (("cell", "plate", "dust"), SIDE, False)


@torch.no_grad()
@pytest.mark.parametrize("suffix", [".onnx", pytest.param(".xml", marks=pytest.mark.slow)])
def test_a_file_of_fixed_batch_takes_any_number(fused, pictures, tmp_path, suffix):
    graph = export_onnx(fused, SIDE, batch=3)
    if suffix == ".xml":
        pytest.importorskip("openvino")
        export_openvino(graph, tmp_path / "model.xml", Metadata(tuple(fused.classes), SIDE))
        runtime = load_runtime(tmp_path / "model.xml")
    else:
        runtime = saved(graph, tmp_path / "model.onnx")
    assert runtime.batch == 3
    for count in (1, 3, 4):
        images = torch.from_numpy(np.concatenate(pictures[:count]))
        for found, expected in zip(runtime(images), fused(images), strict=True):
            assert found.shape == expected.shape and (found - expected).abs().max() < 1e-2


def test_the_file_holds_nothing_of_the_machine(graph):
    text = graph.SerializeToString()
    assert b"/nas/models" not in text and b".py" not in text


@torch.no_grad()
@pytest.mark.parametrize("threshold", [0.3, 0.05, 0.99999])
@pytest.mark.parametrize("limit", [300, 7])
def test_nms_inside_gives_the_detections_of_postprocess(graph, fused, pictures, tmp_path, threshold, limit):
    runtime = saved(append_nms(graph, threshold, 0.5, limit), tmp_path / "nms.onnx", nms=True)
    for batch in (1, 4):
        images = np.concatenate(pictures[:batch])
        scores, boxes, labels = runtime.run(images)
        assert scores.shape == (batch, limit) and boxes.shape == (batch, limit, 4)
        expected = postprocess(*fused(torch.from_numpy(images)), threshold, 0.5, limit)
        for index, found in enumerate(expected):
            count = len(found.scores)
            assert (labels[index, count:] == -1).all() and (scores[index, count:] == 0).all()
            np.testing.assert_allclose(scores[index, :count], found.scores, atol=1e-5)
            np.testing.assert_allclose(boxes[index, :count], found.boxes, atol=1e-2)
            assert labels[index, :count].tolist() == found.labels.tolist()


@torch.no_grad()
def test_nms_inside_through_the_predictor(graph, model, pictures, tmp_path):
    saved(append_nms(graph, 0.05, 0.7, 300), tmp_path / "nms.onnx", nms=True)
    images = [to_rgb(picture[0].transpose(1, 2, 0)) for picture in pictures[:4]]
    for batch in (1, 4):
        ours = Detector(model).predict(images, batch=batch)
        theirs = Detector.load(tmp_path / "nms.onnx").predict(images, batch=batch)
        for one, two in zip(ours, theirs, strict=True):
            assert len(one) and one.names == two.names
            np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-2)
            np.testing.assert_allclose(one.scores, two.scores, atol=1e-4)


def test_half_precision_keeps_decoding_in_full(graph, fused, pictures, tmp_path):
    half = to_half(graph)
    weights = {item.name: item.data_type for item in half.graph.initializer}
    assert weights["neck.merge_3.conv1.conv.weight_half"] == onnx.TensorProto.FLOAT16
    names = decoding_nodes(graph)
    kinds = {node.op_type for node in graph.graph.node if node.name in names}
    assert {"Softmax", "Sigmoid", "Concat"} <= kinds and "Conv" not in kinds
    runtime = saved(half, tmp_path / "half.onnx", precision="fp16")
    agreement = verify(fused, runtime, pictures, TOLERANCES["fp16"])
    assert not agreement.problem and agreement.detections > 100
    with torch.no_grad():
        images = torch.from_numpy(pictures[0])
        assert (runtime(images)[1] - fused(images)[1]).abs().mean() < 0.02


def test_int8_keeps_named_layers_and_finds_the_same(graph, fused, pictures, tmp_path):
    quantised = quantise(graph, pictures, ["head", "neck.merge_3.conv1.conv"])
    floats = {item.name for item in quantised.graph.initializer if item.data_type == onnx.TensorProto.FLOAT}
    assert {"head.gfl_cls.0.weight", "head.gfl_reg.2.weight", "neck.merge_3.conv1.conv.weight"} <= floats
    assert "neck.merge_3.conv2.conv.weight" not in floats
    runtime = saved(quantised, tmp_path / "int8.onnx", precision="int8")
    agreement = verify(fused, runtime, pictures, TOLERANCES["int8"])
    assert not agreement.problem and agreement.detections > 100


def test_unknown_layers_and_methods_are_named(graph, pictures):
    assert [layer_of(node) for node in graph.graph.node if layer_of(node)][0] == "backbone.block_list.0.conv.conv"
    with pytest.raises(UserError, match="no layer is called 'neck.merge_9'; near: neck.merge_"):
        float_nodes(graph, ["neck.merge_9"])
    with pytest.raises(UserError, match="calibration method 'guess' is unknown"):
        quantise(graph, pictures, method="guess")
    with pytest.raises(UserError, match="needs calibration pictures"):
        quantise(graph, [])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_openvino_equals_torch(graph, fused, pictures, tmp_path, precision):
    pytest.importorskip("openvino")
    from nas.deploy.openvino import export_openvino

    path = export_openvino(graph, tmp_path / "model.xml", metadata(precision=precision))
    runtime = load_runtime(path)
    assert runtime.classes == ("cell", "plate", "dust")
    batches = [np.concatenate(pictures[:4]), pictures[4]]
    agreement = verify(fused, runtime, batches, TOLERANCES[precision])
    assert not agreement.problem and agreement.images == 5


def test_openvino_runs_nms_inside(graph, fused, pictures, tmp_path):
    pytest.importorskip("openvino")
    from nas.deploy.openvino import export_openvino

    path = export_openvino(append_nms(graph, 0.3, 0.5, 50), tmp_path / "nms.xml", metadata(nms=True))
    images = torch.from_numpy(np.concatenate(pictures[:2]))
    expected = postprocess(*fused(images), 0.3, 0.5, 50)
    for found, scores in zip(expected, load_runtime(path)(images)[0], strict=True):
        np.testing.assert_allclose(scores.amax(1)[: len(found.scores)], found.scores, atol=1e-4)


def test_a_whole_export(model, graph, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "export_onnx", lambda *a: copy.deepcopy(graph))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steps: list[str] = []
    report = export_model(model, tmp_path / "out/model.any", ExportSettings(), steps.append)
    assert report.path == tmp_path / "out/model.onnx" and steps[-1] == "comparing with torch"
    assert [path.name for path in report.path.parent.iterdir()] == ["model.onnx"]
    assert report.megabytes > 0 and report.milliseconds > 0 and report.to_dict()["path"].endswith("model.onnx")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    detector = Detector.load(report.path)
    assert detector.classes == model.classes
    with pytest.raises(UserError, match="can predict and be evaluated"):
        detector.export(tmp_path / "again.onnx")
    with pytest.raises(UserError, match="was exported for 64 pixels"):
        detector.predict(np.zeros((9, 9, 3), np.uint8), image_size=96)


def test_a_file_that_differs_is_refused_and_leaves_nothing(model, graph, tmp_path, monkeypatch):
    wrong = copy.deepcopy(graph)
    for item in wrong.graph.initializer:
        if item.name == "head.gfl_cls.1.weight":
            values = onnx.numpy_helper.to_array(item) * 1.01
            item.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), item.name))
    monkeypatch.setattr(export_module, "export_onnx", lambda *a: wrong)
    old = tmp_path / "model.onnx"
    old.write_bytes(b"the old file")
    with pytest.raises(UserError, match="the export is refused: on 8 pictures scores differ by"):
        export_model(model, old, ExportSettings())
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"] and old.read_bytes() == b"the old file"


def test_settings_that_do_not_go_together(model, tmp_path):
    for wrong, words in (
        ({"format": "coreml"}, "format must be one of onnx"),
        ({"precision": "int4"}, "precision must be one of fp32"),
        ({"precision": "int8"}, "calibration pictures"),
        ({"keep_float": ("head",)}, "int8 alone"),
        ({"image_size": 100}, "multiple of 32"),
        ({"check_images": 0}, "check_images must be"),
    ):
        with pytest.raises(UserError, match=words):
            ExportSettings(**wrong)
    with pytest.raises(UserError, match="opset must be a whole number from 18 to 23, got 11"):
        export_model(model, tmp_path / "m", ExportSettings(opset=11))
    end_to_end = copy.deepcopy(model)
    end_to_end.end_to_end = True
    with pytest.raises(UserError, match="needs no NMS"):
        export_model(end_to_end, tmp_path / "m", ExportSettings(format="onnx_nms"))


def test_tensorrt_is_refused_where_it_is_not(model, tmp_path):
    pytest.importorskip("nas.deploy.tensorrt")
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="TensorRT is not installed: pip install tensorrt"):
            export_model(model, tmp_path / "m", ExportSettings(format="tensorrt"))


def test_foreign_and_damaged_files_are_refused(graph, tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(UserError, match="no such file"):
        load_runtime(path)
    path.write_bytes(b"hello")
    with pytest.raises(UserError, match="cannot be loaded by ONNX Runtime"):
        load_runtime(path)
    foreign = copy.deepcopy(graph)
    del foreign.metadata_props[:]
    write(foreign, path)
    with pytest.raises(UserError, match="does not say its classes"):
        load_runtime(path)
    with pytest.raises(UserError, match="this version reads"):
        read_metadata('{"format": "maenas-export/7"}', "x")
    with pytest.raises(UserError, match="x: its metadata lacks classes, image_size"):
        read_metadata('{"format": "maenas-export/1"}', "x")
    runtime = saved(graph, path)
    with pytest.raises(UserError, match=r"takes images \(B, 3, 64, 64\)"):
        runtime(np.zeros((1, 3, 32, 32), np.float32))
