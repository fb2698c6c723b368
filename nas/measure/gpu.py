"""TensorRT and torch on an NVIDIA GPU, FP16: whole networks, and for torch single kernels in graphs of their own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.blocks.operation import Operation
from nas.cost.kernel_model import Hardware
from nas.cost.measured_table import Kernels, Row
from nas.cost.postprocess import PostProcess
from nas.deploy.tensorrt import OUTPUTS, Engine, build_plan, import_tensorrt
from nas.errors import UserError
from nas.lowering import operations
from nas.measure import gpu_facts
from nas.measure.measurement import Measurement, build_subject, spread, subject_graph, typical
from nas.measure.postprocessing import measure_postprocess
from nas.spec import DetectorSpec

#: Calls of one kernel in its CUDA graph: the launch of the graph itself then hardly counts.
CALLS = 20
#: Replays of a graph, and runs of an engine, before it is timed.
GRAPH_WARM_UP, ENGINE_WARM_UP = 3, 10


class _Gpu:
    """What both runtimes share: the first GPU, FP16."""

    precision = "fp16"

    def __init__(self, name: str, kernels: Kernels, batch: int) -> None:
        self.name, self.kernels, self.batch = name, kernels, batch
        facts = torch.cuda.get_device_properties(0)
        self.hardware = Hardware(facts.multi_processor_count, getattr(facts, "L2_cache_size", 4_000_000) / 1e6, 2)

    def device(self) -> str:
        return torch.cuda.get_device_name(0)

    def after_network(self, repetitions: int) -> PostProcess:
        return measure_postprocess(repetitions, device="cuda")


class TensorRtGpu(_Gpu):
    """TensorRT, from which the kernel model is calibrated; the engine that would be deployed is built for every network."""

    def __init__(self, batch: int = 1) -> None:
        self.trt = import_tensorrt()
        super().__init__("tensorrt", Kernels(8, ("none", "relu", "silu", "sigmoid"), True), batch)

    def provenance(self) -> dict[str, object]:
        return gpu_facts() | {"tensorrt": self.trt.__version__}

    def measure(self, spec: DetectorSpec, repetitions: int, kernels: bool = True) -> Measurement:
        side, batch = spec.image_size, self.batch
        plan = build_plan(subject_graph(spec, "tensorrt", self.precision), side, (batch, batch, batch))
        engine = Engine(plan, OUTPUTS, "a network of the space")
        images = torch.rand(batch, 3, side, side, device="cuda") * 255
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        values = _event_times(lambda: engine.launch(images, stream), stream, repetitions, ENGINE_WARM_UP)
        return Measurement(spec, typical(values), spread(values))


class TorchCuda(_Gpu):
    """Torch with CUDA graphs, channels last; kernels that were timed once are remembered for the other networks."""

    def __init__(self, batch: int = 1) -> None:
        if not torch.cuda.is_available():
            raise UserError("runtime=cuda needs an NVIDIA GPU and a torch with CUDA; runtime=onnxruntime needs neither")
        torch.backends.cudnn.benchmark = True
        super().__init__("torch", Kernels(1, ("none",), False), batch)
        self._known: dict[Operation, Row] = {}

    def provenance(self) -> dict[str, object]:
        versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        return gpu_facts() | versions | {"mode": "CUDA graphs, channels last"}

    def measure(self, spec: DetectorSpec, repetitions: int, kernels: bool = True) -> Measurement:
        rows = self._rows(spec, repetitions) if kernels else ()
        model = _placed(build_subject(spec))
        images = torch.rand(self.batch, 3, spec.image_size, spec.image_size, device="cuda").half() * 255
        images = images.to(memory_format=torch.channels_last)
        ms, scatter = self._time(lambda: model(images), 1, repetitions)
        return Measurement(spec, ms, scatter, rows)

    def _rows(self, spec: DetectorSpec, repetitions: int) -> tuple[Row, ...]:
        found: dict[Operation, Row] = {}
        for operation in operations(spec, "folded"):
            for kernel in self.kernels.of(operation):
                if kernel not in self._known and (call := self._call(kernel)) is not None:
                    self._known[kernel] = Row(kernel, *self._time(call, CALLS, repetitions))
                if kernel in self._known:
                    found[kernel] = self._known[kernel]
        return tuple(found.values())

    def _call(self, kernel: Operation) -> Callable[[], object] | None:
        """A call that runs one kernel, None for kinds whose time is left to the model."""
        shape = (self.batch, kernel.in_channels, kernel.in_height, kernel.in_width)
        x = torch.rand(shape, device="cuda").half().to(memory_format=torch.channels_last)
        if kernel.kind == "conv":
            padding = kernel.kernel // 2
            layer = _placed(
                nn.Conv2d(
                    kernel.in_channels, kernel.out_channels, kernel.kernel, kernel.stride, padding, groups=kernel.groups
                )
            )
            return lambda: layer(x)
        simple: dict[str, Callable[[Tensor], Tensor]] = {
            "relu": torch.relu, "silu": functional.silu, "sigmoid": torch.sigmoid,
            "upsample": lambda t: functional.interpolate(t, scale_factor=2.0, mode="nearest"),
            "maxpool": lambda t: functional.max_pool2d(t, kernel.kernel, kernel.stride, kernel.kernel // 2),
            "softmax": lambda t: t.softmax(1),
        }  # fmt: skip
        if kernel.kind in simple:
            return lambda: simple[kernel.kind](x)
        half = x[:, : max(1, kernel.in_channels // 2)].contiguous(memory_format=torch.channels_last)
        if kernel.kind == "add":
            return lambda: half + half
        if kernel.kind == "concat" and kernel.in_channels % 2 == 0:
            return lambda: torch.cat([half, half], 1)
        return None

    def _time(self, call: Callable[[], object], calls: int, repetitions: int) -> tuple[float, float]:
        """Milliseconds of one call inside a replayed graph, and their spread in percent."""
        with torch.inference_mode():
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(GRAPH_WARM_UP):
                    call()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for _ in range(calls):
                    call()
            times = _event_times(graph.replay, torch.cuda.current_stream(), repetitions, GRAPH_WARM_UP)
        values = [ms / calls for ms in times]
        return typical(values), spread(values)


def _event_times(
    launch: Callable[[], object], stream: torch.cuda.Stream, repetitions: int, warm_up: int
) -> list[float]:
    """Milliseconds of each launch on a stream, by the GPU's own clock."""
    values = []
    for index in range(repetitions + warm_up):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(stream)
        launch()
        end.record(stream)
        end.synchronize()
        if index >= warm_up:
            values.append(start.elapsed_time(end))
    return values


def _placed(module: nn.Module) -> nn.Module:
    placed: nn.Module = module.cuda().half().eval()
    return placed.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
