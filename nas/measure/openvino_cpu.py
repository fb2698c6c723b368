"""OpenVINO on the CPU: whole networks, and its kernels as its own counters see them inside the network."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

import numpy as np

from nas.blocks.operation import Operation
from nas.cost.kernel_model import Hardware
from nas.cost.measured_table import Kernels, Row
from nas.cost.table_file import cpu_name
from nas.deploy.openvino import convert, import_openvino
from nas.measure.device import cpu_facts
from nas.measure.measurement import Measurement, merge_rows, time_repeated
from nas.measure.subject import subject_graph
from nas.spec import DetectorSpec

#: Layer type of the runtime -> kind of operation.
KINDS = {
    "Concatenation": "concat", "Concat": "concat", "Interpolate": "upsample", "Pooling": "maxpool", "MaxPool": "maxpool",
    "AvgPool": "avgpool", "Softmax": "softmax", "Transpose": "transpose", "Reorder": "reorder",
}  # fmt: skip
ACTIVATIONS = {"Relu": "relu", "Sigmoid": "sigmoid", "Swish": "silu", "SwishCPU": "silu"}


class OpenVinoCpu:
    """OpenVINO with a fixed number of threads and FP32 arithmetic."""

    precision = "fp32"

    def __init__(self, threads: int = 1, batch: int = 1) -> None:
        self.openvino = import_openvino()
        self.name, self.threads, self.batch = "openvino", threads, batch
        self.kernels = Kernels(1, ("none", "relu", "silu", "sigmoid"), True)
        self.hardware = Hardware(multiprocessors=threads, cache_mb=4.0, value_bytes=4)

    def provenance(self) -> dict[str, Any]:
        return cpu_facts() | {"openvino": self.openvino.__version__.split("-")[0], "threads": self.threads}

    def device(self) -> str:
        return f"{cpu_name()}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def measure(self, spec: DetectorSpec, repetitions: int, kernels: bool = True) -> Measurement:
        model = convert(subject_graph(spec, "openvino", batch=self.batch))
        shape = (self.batch, 3, spec.image_size, spec.image_size)
        images = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
        rows = self._profile(model, images, repetitions) if kernels else ()
        request = self._compile(model, False).create_infer_request()
        # With one thread, the processor time of this process leaves out what other programs take.
        clock = time.process_time if self.threads == 1 else time.perf_counter
        ms, scatter = time_repeated(lambda: request.infer([images]), repetitions, clock)
        return Measurement(spec, ms, scatter, rows)

    def _compile(self, model: Any, count: bool) -> Any:
        settings = {
            "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1, "PERF_COUNT": count,
        }  # fmt: skip
        return self.openvino.Core().compile_model(model, "CPU", settings)

    def _profile(self, model: Any, images: np.ndarray[Any, Any], repetitions: int) -> tuple[Row, ...]:
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
            kernel = read_kernel(operator, written) if values else None
            if kernel is not None and values:
                timed.append((self.kernels.key(kernel), values))
        return merge_rows(timed)


def _shape(port: Any) -> list[int]:
    return [int(size) for size in port.get_shape()]


def read_kernel(operator: Any, written: dict[str, Any]) -> Operation | None:
    """The kernel of one operator of the compiled network; `written` are those of the network as given, by name."""
    info = operator.get_rt_info()
    kind = info["layerType"].astype(str)
    inputs, outputs = [_shape(port) for port in operator.inputs()], [_shape(port) for port in operator.outputs()]
    if not inputs or not outputs or len(outputs[0]) not in (3, 4):
        return None
    _, out, *rest = outputs[0]
    height, width = (*rest, 1)[:2]
    _, cin, *source = (*inputs[0], 1, 1)
    in_height, in_width = (*source, 1)[:2]
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
            "conv", cin, out, height, width, in_height, in_width, weights[-1], max(1, round(in_height / height)),
            weights[0] if grouped else 1, activation, sums,
        )  # fmt: skip
    if kind not in KINDS:
        return None
    if kind.startswith("Concat"):
        cin = sum(int(np.prod(shape)) for shape in inputs) // max(height * width * outputs[0][0], 1)
        in_height, in_width = height, width
    pool = "Pool" in kind
    stride = max(1, round(in_height / height)) if pool else 1
    return Operation(KINDS[kind], max(cin, 1), out, height, width, in_height, in_width, 5 if pool else 1, stride)
