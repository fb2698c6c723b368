"""ONNX Runtime and OpenVINO on the CPU, FP32: whole networks, and their kernels as the runtimes themselves time them inside
the network."""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nas.blocks.operation import Operation
from nas.cost.kernel_model import Hardware
from nas.cost.measured_table import Kernels, Row
from nas.cost.postprocess import PostProcess
from nas.cost.table_file import cpu_name
from nas.deploy.openvino import convert, import_openvino
from nas.measure import cpu_facts
from nas.measure.measurement import Measurement, merge_rows, subject_graph, time_repeated
from nas.measure.postprocessing import measure_postprocess
from nas.spec import DetectorSpec

if TYPE_CHECKING:
    from openvino import CompiledModel, Input, Model, Node, Output

#: Kernel name of ONNX Runtime -> kind of operation, for kernels whose time follows from their shapes.
ONNX_KINDS = {
    "QuickGelu": "silu", "MaxPool": "maxpool", "AveragePool": "avgpool", "GlobalAveragePool": "globalpool",
    "Concat": "concat", "Upsample": "upsample", "Resize": "upsample", "Add": "add", "Mul": "mul", "Softmax": "softmax",
    "Sigmoid": "sigmoid", "Relu": "relu",
}  # fmt: skip
#: Layer type of OpenVINO -> kind of operation.
OPENVINO_KINDS = {
    "Concatenation": "concat", "Concat": "concat", "Interpolate": "upsample", "Pooling": "maxpool", "MaxPool": "maxpool",
    "AvgPool": "avgpool", "Softmax": "softmax", "Transpose": "transpose", "Reorder": "reorder",
}  # fmt: skip
ACTIVATIONS = {"Relu": "relu", "Sigmoid": "sigmoid", "Swish": "silu", "SwishCPU": "silu"}
#: Floats of one vector register times the registers of a block: ONNX Runtime pads channels to this.
BLOCK = 16


class _Cpu:
    """What both runtimes share: a fixed number of threads, FP32, pictures of noise."""

    precision = "fp32"

    def __init__(self, name: str, kernels: Kernels, threads: int, batch: int) -> None:
        self.name, self.kernels, self.threads, self.batch = name, kernels, threads, batch
        self.hardware = Hardware(multiprocessors=threads, cache_mb=4.0, value_bytes=4)

    def device(self) -> str:
        return f"{cpu_name()}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def images(self, spec: DetectorSpec) -> npt.NDArray[np.float32]:
        shape = (self.batch, 3, spec.image_size, spec.image_size)
        return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)

    def after_network(self, repetitions: int) -> PostProcess:
        return measure_postprocess(repetitions, self.threads)

    def clock(self, alone: Callable[[], float]) -> Callable[[], float]:
        """With one thread, its own clock `alone`, which stands still while the system lets others run."""
        return alone if self.threads == 1 else time.perf_counter


class OnnxRuntimeCpu(_Cpu):
    """ONNX Runtime with a fixed number of threads."""

    def __init__(self, threads: int = 1, batch: int = 1) -> None:
        super().__init__("onnxruntime", Kernels(BLOCK, ("none", "relu"), True), threads, batch)

    def provenance(self) -> dict[str, object]:
        import onnxruntime

        return cpu_facts() | {"onnxruntime": onnxruntime.__version__, "threads": self.threads}

    def measure(self, spec: DetectorSpec, repetitions: int, kernels: bool = True) -> Measurement:
        network, images = subject_graph(spec, batch=self.batch).SerializeToString(), self.images(spec)
        rows = self._profile(network, images, repetitions) if kernels else ()
        session = self._session(network)
        clock = self.clock(time.thread_time)  # its one thread runs in ours
        ms, scatter = time_repeated(lambda: session.run(None, {"images": images}), repetitions, clock)
        return Measurement(spec, ms, scatter, rows)

    def _session(self, network: bytes, profile: Path | None = None) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])

    def _profile(self, network: bytes, images: npt.NDArray[np.float32], repetitions: int) -> tuple[Row, ...]:
        with tempfile.TemporaryDirectory() as folder:
            session = self._session(network, Path(folder) / "profile")
            for _ in range(repetitions + 1):
                session.run(None, {"images": images})
            events = json.loads(Path(session.end_profiling()).read_text())
        times: dict[str, list[float]] = defaultdict(list)
        kernels: dict[str, Operation] = {}
        for event in events:
            if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
                continue
            name = event["name"]
            if name not in kernels and (kernel := onnx_kernel(event["args"], name)) is not None:
                kernels[name] = kernel
            if name in kernels:
                times[name].append(event["dur"] / 1e3)
        return merge_rows([(self.kernels.key(kernels[name]), times[name][1:]) for name in kernels])


class OpenVinoCpu(_Cpu):
    """OpenVINO with a fixed number of threads and FP32 arithmetic."""

    def __init__(self, threads: int = 1, batch: int = 1) -> None:
        self.openvino = import_openvino()
        super().__init__("openvino", Kernels(1, ("none", "relu", "silu", "sigmoid"), True), threads, batch)

    def provenance(self) -> dict[str, object]:
        return cpu_facts() | {"openvino": self.openvino.__version__.split("-")[0], "threads": self.threads}

    def measure(self, spec: DetectorSpec, repetitions: int, kernels: bool = True) -> Measurement:
        model, images = convert(subject_graph(spec, "openvino", batch=self.batch)), self.images(spec)
        rows = self._profile(model, images, repetitions) if kernels else ()
        request = self._compile(model, False).create_infer_request()
        clock = self.clock(time.process_time)  # its one thread is a thread of this process
        ms, scatter = time_repeated(lambda: request.infer([images]), repetitions, clock)
        return Measurement(spec, ms, scatter, rows)

    def _compile(self, model: Model, count: bool) -> CompiledModel:
        settings = {
            "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1, "PERF_COUNT": count,
        }  # fmt: skip
        return self.openvino.Core().compile_model(model, "CPU", settings)

    def _profile(self, model: Model, images: npt.NDArray[np.float32], repetitions: int) -> tuple[Row, ...]:
        compiled = self._compile(model, True)
        request = compiled.create_infer_request()
        times: dict[str, list[float]] = defaultdict(list)
        for index in range(repetitions + 1):
            request.infer([images])
            for entry in request.profiling_info if index else ():
                times[entry.node_name].append(entry.real_time.total_seconds() * 1e3)
        written = {operator.get_friendly_name(): operator for operator in model.get_ordered_ops()}
        timed = []
        for operator in compiled.get_runtime_model().get_ordered_ops():
            values = times.get(operator.get_friendly_name())
            kernel = openvino_kernel(operator, written) if values else None
            if kernel is not None and values:
                timed.append((self.kernels.key(kernel), values))
        return merge_rows(timed)


def _place(shape: Sequence[int]) -> tuple[int, int, int]:
    """Channels, height and width of maps (N, C, H, W) or rows (N, C, L)."""
    _, channels, height, width, *_ = (*shape, 1, 1, 1, 1)
    return channels, height, width


def _joined_channels(inputs: Sequence[Sequence[int]], output: Sequence[int]) -> int:
    """Channels that several inputs of the output's size have together."""
    cells = output[0] * prod(_place(output)[1:])
    return max(sum(prod(shape) for shape in inputs) // max(cells, 1), 1)


def _shapes(described: Any) -> list[list[int]]:
    """Shapes of ONNX Runtime's list of {type: shape}."""
    return [list(next(iter(entry.values()))) for entry in described]


def onnx_kernel(arguments: Mapping[str, object], name: str) -> Operation | None:
    """The kernel that one event of ONNX Runtime's profiler describes, None for those without a price of their own."""
    kind = str(arguments["op_name"])
    inputs, outputs = _shapes(arguments["input_type_shape"]), _shapes(arguments["output_type_shape"])
    if not inputs or not outputs:
        return None
    cin, in_height, in_width = _place(inputs[0])
    out, height, width = _place(outputs[0])
    stride = max(1, round(in_height / max(height, 1)))
    if kind in ("Conv", "FusedConv"):
        if len(outputs[0]) != 4 or len(inputs) < 2:
            return None
        groups = max(1, cin // inputs[1][1])
        return Operation(
            "conv", cin, out, height, width, in_height, in_width, inputs[1][2], stride, groups, fused_add=len(inputs) > 3
        )  # fmt: skip
    if kind not in ONNX_KINDS or len(outputs[0]) not in (3, 4):
        return None
    if kind in ("Concat", "Add"):
        return Operation(ONNX_KINDS[kind], _joined_channels(inputs, outputs[0]), out, height, width, height, width)
    # Kernel sizes of poolings are not in a profile; their time hardly depends on them in the runtime's blocked form.
    window = {"MaxPool": 5, "AveragePool": 2}.get(kind, 1)
    return Operation(
        ONNX_KINDS[kind], cin, out, height, width, in_height, in_width, window, stride if window > 1 else 1
    )


def _shape(port: Input | Output) -> list[int]:
    return [int(size) for size in port.get_shape()]


def openvino_kernel(operator: Node, written: Mapping[str, Node]) -> Operation | None:
    """The kernel of one operator of OpenVINO's compiled network; `written` are those of the network as given, by name."""
    info = operator.get_rt_info()
    kind = info["layerType"].astype(str)
    inputs, outputs = [_shape(port) for port in operator.inputs()], [_shape(port) for port in operator.outputs()]
    if not inputs or not outputs or len(outputs[0]) not in (3, 4):
        return None
    cin, in_height, in_width = _place(inputs[0])
    out, height, width = _place(outputs[0])
    stride = max(1, round(in_height / max(height, 1)))
    if kind == "Convolution":
        names = info["originalLayersNames"].astype(str).split(",")
        members = [written[name] for name in names if name in written]
        weighted = [member for member in members if member.get_type_name() in ("Convolution", "GroupConvolution")]
        if not weighted:
            return None
        weights = _shape(weighted[0].inputs()[1])
        grouped = weighted[0].get_type_name() == "GroupConvolution"
        sums = any(
            member.get_type_name() == "Add" and _shape(member.inputs()[0]) == _shape(member.inputs()[1])
            for member in members
        )
        activation = next((ACTIVATIONS[m.get_type_name()] for m in members if m.get_type_name() in ACTIVATIONS), "none")
        return Operation(
            "conv", cin, out, height, width, in_height, in_width, weights[-1], stride, weights[0] if grouped else 1,
            activation, sums,
        )  # fmt: skip
    if kind not in OPENVINO_KINDS:
        return None
    if kind.startswith("Concat"):
        cin, in_height, in_width = _joined_channels(inputs, outputs[0]), height, width
    pool = "Pool" in kind
    window, stride = (5, stride) if pool else (1, 1)
    return Operation(OPENVINO_KINDS[kind], max(cin, 1), out, height, width, in_height, in_width, window, stride)
