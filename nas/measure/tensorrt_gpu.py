"""TensorRT on an NVIDIA GPU, FP16: whole networks, from which the kernel model is calibrated."""

from __future__ import annotations

from typing import Any

import torch

from nas.cost.kernel_model import Hardware
from nas.cost.measured_table import Kernels
from nas.deploy.tensorrt_engine import import_tensorrt
from nas.errors import UserError
from nas.measure.device import gpu_facts
from nas.measure.measurement import Measurement, spread, typical
from nas.measure.subject import build_subject, export_subject
from nas.spec import DetectorSpec

WARM_UP = 10


class TensorRtGpu:
    """TensorRT 10 on the first GPU; an engine is built for every network."""

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
        context, buffers = self._prepare(export_subject(build_subject(spec), spec.image_size, self.batch))
        stream = torch.cuda.Stream()
        values = []
        for index in range(repetitions + WARM_UP):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record(stream)
            context.execute_async_v3(stream.cuda_stream)
            end.record(stream)
            end.synchronize()
            if index >= WARM_UP:
                values.append(start.elapsed_time(end))
        del buffers
        return Measurement(spec, typical(values), spread(values))

    def _prepare(self, network: bytes) -> tuple[Any, list[torch.Tensor]]:
        """An execution context with an address for every input and output."""
        logger = self.trt.Logger(self.trt.Logger.ERROR)
        builder = self.trt.Builder(logger)
        definition = builder.create_network(0)
        parser = self.trt.OnnxParser(definition, logger)
        if not parser.parse(network):
            raise UserError(f"TensorRT cannot read the network: {parser.get_error(0).desc()}")
        config = builder.create_builder_config()
        config.set_flag(self.trt.BuilderFlag.FP16)
        plan = builder.build_serialized_network(definition, config)
        engine = self.trt.Runtime(logger).deserialize_cuda_engine(plan) if plan is not None else None
        if engine is None:
            raise UserError("TensorRT could not build an engine for a network of the space")
        context, buffers = engine.create_execution_context(), []
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            size = 1
            for side in engine.get_tensor_shape(name):
                size *= side
            buffers.append(torch.zeros(size * 8, dtype=torch.uint8, device="cuda"))
            context.set_tensor_address(name, buffers[-1].data_ptr())
        return context, buffers
