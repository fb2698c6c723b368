"""What is asked of TensorRT exists in versions 10 and 11, and the graphs it is given are those it takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from nas.deploy import ExportSettings
from nas.deploy.export import deployed_graph
from nas.deploy.onnx_graph import decoding_nodes
from nas.deploy.parity import TOLERANCES, verify
from nas.deploy.runtime import Metadata
from nas.deploy.tensorrt import TensorRtRuntime, build_plan, export_tensorrt
from nas.errors import UserError
from nas.frame import Frame
from nas.measure import gpu
from nas.models.detector import DetectionModel
from search_spaces.published import load_published

#: Classes, members and numbers of arguments (null: no call) of the Python packages of two versions, read off them.
API = json.loads((Path(__file__).parent / "tensorrt_api.json").read_text())
SIDE = 64


class Recorded:
    """An object of a recorded class: anything that the class does not have, or takes otherwise, is an error."""

    def __init__(self, version: str, kind: str, log: list[Any], answers: dict[str, Any]) -> None:
        self._of = (version, kind, log, answers)

    def __getattr__(self, name: str) -> Any:
        version, kind, log, answers = self._of
        members = API[version][kind]
        if name not in members:
            raise AttributeError(f"TensorRT {version} has no {kind}.{name}")
        limits, answer = members[name], answers.get(name)
        if limits is None:
            return answer

        def call(*given: Any) -> Any:
            assert limits[0] <= len(given) <= limits[1], f"{kind}.{name} takes {limits} arguments"
            log.append((kind, name, given))
            return answer(*given) if callable(answer) else answer

        return call


def fake_tensorrt(version: str, log: list[Any], **answers: Any) -> Any:
    """A module with the names of one version; every object answers calls by name from `answers`."""
    api = API[version]
    made = {
        "create_network": "INetworkDefinition", "create_builder_config": "IBuilderConfig",
        "create_optimization_profile": "IOptimizationProfile", "create_execution_context": "IExecutionContext",
        "deserialize_cuda_engine": "ICudaEngine", "get_error": "ParserError",
    }  # fmt: skip
    known = dict(answers)
    for name, kind in made.items():
        known.setdefault(name, lambda *given, kind=kind: Recorded(version, kind, log, known))
    module = SimpleNamespace(__version__=version, **{name: name for name in api["module"] if name not in api})
    for kind, members in api.items():
        numbers = {name: place for place, name in enumerate(members) if members[name] is None}

        def create(*given: Any, kind: str = kind) -> Recorded:
            limits = api[kind].get("__init__", [0, 0])
            assert limits[0] <= len(given) <= limits[1], f"{kind} takes {limits} arguments"
            return Recorded(version, kind, log, known)

        vars(create).update(numbers)
        setattr(module, kind, create)
    return module


@pytest.fixture(params=sorted(API))
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def int8(fused: DetectionModel, pictures: list[np.ndarray]) -> Any:
    settings = ExportSettings("tensorrt", "int8", images="calibration")
    return deployed_graph(fused, SIDE, settings, pictures)


@pytest.fixture(scope="module")
def half(fused: DetectionModel) -> Any:
    return deployed_graph(fused, SIDE, ExportSettings("tensorrt", "fp16"))


@pytest.mark.slow
def test_int8_graphs_hold_8_bit_values_around_zero_and_no_quantised_bias(int8: Any) -> None:
    constants = {item.name: item for item in int8.graph.initializer}
    producers = {name: node for node in int8.graph.node for name in node.output}
    convolutions = [node for node in int8.graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 40
    assert TensorProto.INT32 not in {item.data_type for item in constants.values()}
    for node in convolutions:
        assert producers[node.input[1]].op_type == "DequantizeLinear"
        assert {constants[name].data_type for name in node.input[2:]} <= {TensorProto.FLOAT16}
    for node in int8.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants[node.input[2]]
            assert zero.data_type == TensorProto.INT8 and not onnx.numpy_helper.to_array(zero).any()


def test_int8_graphs_compute_what_torch_computes(int8: Any, fused: DetectionModel, pictures: list[np.ndarray]) -> None:
    options = onnxruntime.SessionOptions()
    # As written: ONNX Runtime's own 8-bit kernels saturate on processors without VNNI.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(int8.SerializeToString(), options)
    found = verify(
        fused, lambda images: session.run(["scores", "boxes"], {"images": images.numpy()}), pictures, TOLERANCES["int8"]
    )
    assert not found.problem and found.matched > 0.95


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_typed_graphs_decode_in_32_bits(precision: str, int8: Any, half: Any) -> None:
    graph = int8 if precision == "int8" else half
    values = onnx.shape_inference.infer_shapes(graph).graph
    kinds = {item.name: item.type.tensor_type.elem_type for item in [*values.value_info, *values.output]}
    decoding = set(decoding_nodes(graph))
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    for node in graph.graph.node:
        for name in node.output:
            if kinds.get(name) in floats and node.op_type not in ("Cast", "DequantizeLinear", "QuantizeLinear"):
                assert kinds[name] == (TensorProto.FLOAT if node.name in decoding else TensorProto.FLOAT16), node.name


def test_plans_are_strongly_typed_in_both_versions(
    version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, half: Any
) -> None:
    log: list[Any] = []
    trt = fake_tensorrt(version, log, parse=True, build_serialized_network=b"plan", clear_flag=None)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    export_tensorrt(half, tmp_path / "model.engine", Metadata(("a",), SIDE, precision="fp16"), 8)
    calls = {f"{kind}.{name}": given for kind, name, given in log}
    assert calls["Builder.create_network"] == (1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED,)
    assert calls["IBuilderConfig.clear_flag"] == (trt.BuilderFlag.TF32,)
    assert "IBuilderConfig.set_flag" not in calls
    assert calls["IOptimizationProfile.set_shape"] == ("images", *((n, 3, SIDE, SIDE) for n in (1, 1, 8)))
    parsed = onnx.load_from_string(calls["OnnxParser.parse"][0])
    assert TensorProto.FLOAT16 in {item.data_type for item in parsed.graph.initializer}
    assert (tmp_path / "model.engine").read_bytes().endswith(b"plan")


def test_what_tensorrt_refuses_is_told_in_its_words(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    graph = SimpleNamespace(SerializeToString=lambda: b"")
    for answers, words in (
        ({"parse": False, "desc": "no such node"}, "cannot read the network: no such node"),
        ({"parse": True, "build_serialized_network": None}, "could not build an engine"),
    ):
        monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(version, [], **answers))
        with pytest.raises(UserError, match=words):
            build_plan(graph, SIDE, (1, 1, 1))


def test_engines_run_in_turns_of_their_largest_batch_and_keep_their_buffers(
    version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log: list[Any] = []
    trt = fake_tensorrt(
        version, log, parse=True, build_serialized_network=b"plan", execute_async_v3=True,
        get_tensor_profile_shape=[(1, 3, SIDE, SIDE), (1, 3, SIDE, SIDE), (2, 3, SIDE, SIDE)],
        get_tensor_shape=lambda name: (2, 5, 4 if name == "boxes" else 3), get_tensor_dtype="float32",
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    stream = SimpleNamespace(cuda_stream=7, synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    monkeypatch.setattr(torch, "empty", torch.zeros)  # buffers that no engine fills
    graph = SimpleNamespace(SerializeToString=lambda: b"")
    runtime = TensorRtRuntime(export_tensorrt(graph, tmp_path / "m.engine", Metadata(("a", "b", "c"), SIDE), 2))
    scores, boxes = runtime(np.zeros((6, 3, SIDE, SIDE), np.float32))
    assert scores.shape == (6, 5, 3) and boxes.shape == (6, 5, 4)
    places: dict[str, list[int]] = {}
    for _, name, given in log:
        if name == "set_tensor_address":
            places.setdefault(given[0], []).append(given[1])
    assert len(places["scores"]) == 3 and len(set(places["scores"])) == len(set(places["boxes"])) == 1
    assert [given for _, name, given in log if name == "execute_async_v3"] == [(7,)] * 3
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(version, [], deserialize_cuda_engine=None))
    with pytest.raises(UserError, match="was built for another GPU or TensorRT version"):
        TensorRtRuntime(tmp_path / "m.engine")


def test_latency_tables_time_the_plan_that_is_deployed(
    version: str, monkeypatch: pytest.MonkeyPatch, half: Any
) -> None:
    log: list[Any] = []
    trt = fake_tensorrt(
        version, log, parse=True, build_serialized_network=b"plan", execute_async_v3=True,
        get_tensor_profile_shape=[(2, 3, SIDE, SIDE)] * 3, get_tensor_shape=(2, 5, 4), get_tensor_dtype="float32",
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    event = SimpleNamespace(record=lambda stream: None, synchronize=lambda: None, elapsed_time=lambda other: 1.5)
    stream = SimpleNamespace(cuda_stream=7, wait_stream=lambda other: None)
    rand = torch.rand
    for name, value in (
        ("is_available", lambda: True), ("Event", lambda **_: event), ("Stream", lambda: stream),
        ("current_stream", lambda: stream),
        ("get_device_properties", lambda index: SimpleNamespace(multi_processor_count=40)),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch, "rand", lambda *shape, device: rand(*shape))
    asked: list[Any] = []
    monkeypatch.setattr(gpu, "subject_graph", lambda *given: asked.append(given) or half)
    spec = Frame(image_size=SIDE).detector(load_published("tinynas_l20_k1kx"))
    result = gpu.TensorRtGpu(batch=2).measure(spec, 3)
    assert (result.ms, result.kernels) == (1.5, ())
    calls = {name: given for _, name, given in log}
    assert calls["set_shape"] == ("images", *[(2, 3, SIDE, SIDE)] * 3)
    assert asked == [(spec, "tensorrt", "fp16")] and calls["parse"] == (half.SerializeToString(),)
