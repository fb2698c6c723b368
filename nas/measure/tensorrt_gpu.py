"""TensorRT on an NVIDIA GPU, FP16: whole networks, from which the kernel model is calibrated."""

from __future__ import annotations

from typing import Any

import torch

from nas.cost.kernel_model import Hardware
from nas.cost.measured_table import Kernels
from nas.deploy.tensorrt import OUTPUTS, Engine, build_plan, import_tensorrt
from nas.measure.device import gpu_facts
from nas.measure.measurement import Measurement, spread, typical
from nas.measure.subject import subject_graph
from nas.spec import DetectorSpec

WARM_UP = 10


class TensorRtGpu:
    """TensorRT on the first GPU; the engine that would be deployed is built for every network."""

    precision = "fp16"

    def __init__(self, batch: int = 1) -> None:
        self.trt = import_tensorrt()
        self.name, self.batch = "tensorrt", batch
        self.kernels = Kernels(8, ("none", "relu", "silu", "sigmoid"), True)
        facts = torch.cuda.get_device_properties(0)
        self.hardware = Hardware(facts.multi_processor_count, getattr(facts, "L2_cache_size", 4_000_000) / 1e6, 2)

    def provenance(self) -> dict[str, Any]:
        return gpu_facts() | {"tensorrt": self.trt.__version__}

    def device(self) -> str:
        return torch.cuda.get_device_name(0)

    def measure(self, spec: DetectorSpec, repetitions: int, kernels: bool = True) -> Measurement:
        side, batch = spec.image_size, self.batch
        plan = build_plan(subject_graph(spec, "tensorrt", self.precision), side, (batch, batch, batch))
        engine = Engine(plan, OUTPUTS, "a network of the space")
        images = torch.rand(batch, 3, side, side, device="cuda") * 255
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        values = []
        for index in range(repetitions + WARM_UP):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(stream)
            engine.launch(images, stream)
            end.record(stream)
            end.synchronize()
            if index >= WARM_UP:
                values.append(start.elapsed_time(end))
        return Measurement(spec, typical(values), spread(values))
