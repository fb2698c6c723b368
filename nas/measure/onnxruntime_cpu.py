"""ONNX Runtime on the CPU, FP32: whole networks, and its kernels as its own profiler sees them inside the network."""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from nas.blocks.operation import Operation
from nas.cost.kernel_model import Hardware
from nas.cost.measured_table import Kernels, Row
from nas.cost.table_file import cpu_name
from nas.measure.device import cpu_facts
from nas.measure.measurement import Measurement, merge_rows, time_repeated
from nas.measure.subject import subject_graph
from nas.spec import DetectorSpec

#: Kernel name of the runtime -> kind of operation, for kernels whose time follows from their shapes.
KINDS = {
    "QuickGelu": "silu", "MaxPool": "maxpool", "AveragePool": "avgpool", "GlobalAveragePool": "globalpool",
    "Concat": "concat", "Upsample": "upsample", "Resize": "upsample", "Add": "add", "Mul": "mul", "Softmax": "softmax",
    "Sigmoid": "sigmoid", "Relu": "relu",
}  # fmt: skip
#: Floats of one vector register times the registers of a block: channels are padded to this.
BLOCK = 16


class OnnxRuntimeCpu:
    """ONNX Runtime with a fixed number of threads."""

    precision = "fp32"

    def __init__(self, threads: int = 1, batch: int = 1) -> None:
        self.name, self.threads, self.batch = "onnxruntime", threads, batch
        self.kernels = Kernels(BLOCK, ("none", "relu"), True)
        self.hardware = Hardware(multiprocessors=threads, cache_mb=4.0, value_bytes=4)

    def provenance(self) -> dict[str, Any]:
        import onnxruntime

        return cpu_facts() | {"onnxruntime": onnxruntime.__version__, "threads": self.threads}

    def device(self) -> str:
        return f"{cpu_name()}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def measure(self, spec: DetectorSpec, repetitions: int, kernels: bool = True) -> Measurement:
        network = subject_graph(spec, batch=self.batch).SerializeToString()
        shape = (self.batch, 3, spec.image_size, spec.image_size)
        images = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
        rows = self._profile(network, images, repetitions) if kernels else ()
        session = self._session(network)
        # One thread runs in ours: its own clock stands still while the system lets others run.
        clock = time.thread_time if self.threads == 1 else time.perf_counter
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

    def _profile(self, network: bytes, images: np.ndarray[Any, Any], repetitions: int) -> tuple[Row, ...]:
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
            if name not in kernels and (kernel := read_kernel(event["args"], name)) is not None:
                kernels[name] = kernel
            if name in kernels:
                times[name].append(event["dur"] / 1e3)
        return merge_rows([(self.kernels.key(kernels[name]), times[name][1:]) for name in kernels])


def _shapes(described: Any) -> list[list[int]]:
    """Shapes of the profiler's list of {type: shape}."""
    return [list(next(iter(entry.values()))) for entry in described]


def read_kernel(arguments: dict[str, Any], name: str) -> Operation | None:
    """The kernel that one event of the profiler describes, None for those without a price of their own."""
    kind = arguments["op_name"]
    inputs, outputs = _shapes(arguments["input_type_shape"]), _shapes(arguments["output_type_shape"])
    if not inputs or not outputs:
        return None
    if kind in ("Conv", "FusedConv"):
        if len(outputs[0]) != 4 or len(inputs) < 2:
            return None
        _, out, height, width = outputs[0]
        _, cin, in_height, in_width = inputs[0]
        stride = max(1, round(in_height / height))
        groups = max(1, cin // inputs[1][1])
        return Operation(
            "conv", cin, out, height, width, in_height, in_width, inputs[1][2], stride, groups, fused_add=len(inputs) > 3
        )  # fmt: skip
    if kind not in KINDS or len(outputs[0]) not in (3, 4):
        return None
    _, out, *rest = outputs[0]
    height, width = (*rest, 1)[:2]
    if kind in ("Concat", "Add"):
        cells = max(height * width, 1)
        read = sum(int(np.prod(shape)) for shape in inputs) // cells // max(outputs[0][0], 1)
        return Operation(KINDS[kind], max(read, 1), out, height, width, height, width)
    _, cin, *source = inputs[0]
    in_height, in_width = (*source, 1)[:2]
    window = in_height != height or "Pool" in kind
    stride = max(1, round(in_height / height)) if window and "Pool" in kind and kind != "GlobalAveragePool" else 1
    return Operation(KINDS[kind], cin, out, height, width, in_height, in_width, _pool_size(kind, name), stride)


def _pool_size(kind: str, name: str) -> int:
    """Kernel sizes of poolings are not in a profile; their time hardly depends on them in the runtime's blocked form."""
    return 5 if kind == "MaxPool" else 2 if kind == "AveragePool" else 1
