"""TensorRT engines (10 or newer) from an ONNX graph, built and run only where TensorRT and a GPU are."""

from __future__ import annotations

import importlib
import json
import struct
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch

from nas.deploy.runtime import Metadata, Runtime, read_metadata
from nas.errors import UserError
from nas.files import write_atomic

if TYPE_CHECKING:
    from onnx import ModelProto

#: An engine file is this mark, the length of the metadata, the metadata, the plan.
MAGIC = b"MAENASTRT1"
WORKSPACE_BYTES = 4 << 30
#: What a network without NMS gives.
OUTPUTS = ("scores", "boxes")


def import_tensorrt() -> ModuleType:
    """The tensorrt package, version 10 or newer with a GPU, or UserError saying what is missing."""
    try:
        tensorrt = importlib.import_module("tensorrt")
    except ImportError:
        raise UserError("TensorRT is not installed: pip install tensorrt (10 or 11), or export format=onnx") from None
    if int(tensorrt.__version__.split(".")[0]) < 10:
        raise UserError(f"TensorRT {tensorrt.__version__} is too old: version 10 is needed")
    if not torch.cuda.is_available():
        raise UserError("TensorRT needs an NVIDIA GPU and a torch with CUDA")
    return tensorrt


def build_plan(graph: ModelProto, side: int, batches: tuple[int, int, int]) -> bytes:
    """A plan for this machine's GPU from the ONNX graph of a detector whose batch is free.

    The network is strongly typed: every layer computes in the type that the graph gives it, which TensorRT 10 offers and
    11 demands, and 32-bit layers do so in full (no TF32), because boxes are decoded there. batches: the smallest, the one
    to be quickest at, the largest. Raises UserError with TensorRT's own words if it refuses the graph.
    """
    trt = import_tensorrt()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph.SerializeToString()):
        raise UserError(f"TensorRT cannot read the network: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    profile.set_shape("images", *((batch, 3, side, side) for batch in batches))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UserError("TensorRT could not build an engine for this network; its log above says why")
    return bytes(plan)


def export_tensorrt(graph: ModelProto, path: str | Path, metadata: Metadata, max_batch: int = 1) -> Path:
    """Build an engine from an ONNX graph, quick at one image, and write it with its metadata; errors as `build_plan`."""
    header = metadata.to_json().encode()
    plan = build_plan(graph, metadata.image_size, (1, 1, max_batch))
    return write_atomic(path, MAGIC + struct.pack("<I", len(header)) + header + plan)


class Engine:
    """A plan on the GPU: `launch(images)` starts it on a stream; its outputs lie in buffers that are used again.

    Raises UserError that names `where` if the plan is another GPU's or TensorRT version's.
    """

    def __init__(self, plan: bytes, outputs: tuple[str, ...], where: object) -> None:
        trt = import_tensorrt()
        self.engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(plan)
        if self.engine is None:
            raise UserError(f"{where} was built for another GPU or TensorRT version: export it again on this machine")
        self.context = self.engine.create_execution_context()
        self.outputs = outputs
        self.types = {trt.float32: torch.float32, trt.float16: torch.float16, trt.int64: torch.int64}
        self.largest_batch = int(self.engine.get_tensor_profile_shape("images", 0)[2][0])
        self._buffers: dict[tuple[int, ...], list[torch.Tensor]] = {}

    def launch(self, images: torch.Tensor, stream: torch.cuda.Stream) -> list[torch.Tensor]:
        """Start on images (B, 3, S, S) that lie on the GPU; the buffers hold the outputs once the stream is through."""
        shape = tuple(images.shape)
        self.context.set_input_shape("images", shape)
        self.context.set_tensor_address("images", images.data_ptr())
        if shape not in self._buffers:
            self._buffers[shape] = [self._buffer(name, images.device) for name in self.outputs]
        for name, buffer in zip(self.outputs, self._buffers[shape], strict=True):
            self.context.set_tensor_address(name, buffer.data_ptr())
        self.context.execute_async_v3(stream.cuda_stream)
        return self._buffers[shape]

    def _buffer(self, name: str, device: torch.device) -> torch.Tensor:
        shape, kind = tuple(self.context.get_tensor_shape(name)), self.engine.get_tensor_dtype(name)
        return torch.empty(shape, dtype=self.types[kind], device=device)


class TensorRtRuntime(Runtime):
    """An .engine file on the GPU it was built for."""

    device = "cuda"
    packages = ("tensorrt",)

    def __init__(self, path: str | Path) -> None:
        metadata, plan = read_engine(path)
        super().__init__(metadata)
        self.engine = Engine(plan, (*OUTPUTS, "labels") if metadata.nms else OUTPUTS, path)

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        limit, stream = self.engine.largest_batch, torch.cuda.current_stream()
        parts = []
        for start in range(0, len(images), limit):
            results = self.engine.launch(torch.from_numpy(images[start : start + limit]).cuda(), stream)
            stream.synchronize()
            parts.append([value.to("cpu", copy=True) for value in results])
        return tuple(torch.cat(pieces).numpy() for pieces in zip(*parts, strict=True))


def read_engine(path: str | Path) -> tuple[Metadata, bytes]:
    """The metadata and the plan of an engine file; raises UserError if it is not one of ours."""
    data = Path(path).read_bytes()
    if not data.startswith(MAGIC) or len(data) < len(MAGIC) + 4:
        raise UserError(f"{path} was not made by python -m nas.export")
    (length,) = struct.unpack_from("<I", data, len(MAGIC))
    start = len(MAGIC) + 4
    try:
        text = data[start : start + length].decode()
        json.loads(text)
    except ValueError:
        raise UserError(f"{path} is damaged") from None
    return read_metadata(text, path), data[start + length :]
