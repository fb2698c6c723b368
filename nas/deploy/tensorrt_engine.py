"""TensorRT 10 engines from an ONNX graph, built and run only where TensorRT and a GPU are."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nas.deploy.metadata import Metadata, read_metadata
from nas.deploy.runtime import Runtime
from nas.errors import UserError
from nas.files import write_atomic

#: An engine file is this mark, the length of the metadata, the metadata, the plan.
MAGIC = b"MAENASTRT1"


def import_tensorrt() -> Any:
    """The tensorrt package, version 10 or newer with a GPU, or UserError saying what is missing."""
    try:
        import tensorrt
    except ImportError:
        raise UserError("TensorRT is not installed: pip install tensorrt (version 10), or export format=onnx") from None
    if int(tensorrt.__version__.split(".")[0]) < 10:
        raise UserError(f"TensorRT {tensorrt.__version__} is too old: version 10 is needed")
    if not torch.cuda.is_available():
        raise UserError("TensorRT needs an NVIDIA GPU and a torch with CUDA")
    return tensorrt


def export_tensorrt(
    graph: Any, path: str | Path, metadata: Metadata, max_batch: int = 1, workspace_gb: float = 4.0
) -> Path:
    """Build an engine for this machine's GPU from an ONNX graph and write it with its metadata.

    fp16 lets TensorRT choose half precision layer by layer; int8 takes the scales of the quantised graph. Raises
    UserError with TensorRT's own words if it refuses the graph.
    """
    trt = import_tensorrt()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph.SerializeToString()):
        raise UserError(f"TensorRT cannot read the network: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(workspace_gb * 2**30))
    if metadata.precision in ("fp16", "int8"):
        config.set_flag(trt.BuilderFlag.FP16)
    if metadata.precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    side = metadata.image_size
    profile = builder.create_optimization_profile()
    profile.set_shape("images", (1, 3, side, side), (1, 3, side, side), (max_batch, 3, side, side))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UserError("TensorRT could not build an engine for this network; its log above says why")
    header = metadata.to_json().encode()
    return write_atomic(path, MAGIC + struct.pack("<I", len(header)) + header + bytes(plan))


class TensorRtRuntime(Runtime):
    """An .engine file on the GPU it was built for."""

    def __init__(self, path: str | Path) -> None:
        trt = import_tensorrt()
        metadata, plan = read_engine(path)
        super().__init__(metadata)
        self.engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(plan)
        if self.engine is None:
            raise UserError(f"{path} was built for another GPU or TensorRT version: export it again on this machine")
        self.context = self.engine.create_execution_context()
        self.types = {trt.float32: torch.float32, trt.float16: torch.float16, trt.int64: torch.int64}
        self.outputs = ["scores", "boxes", *(["labels"] if metadata.nms else [])]
        self.limit = self.engine.get_tensor_profile_shape("images", 0)[2][0]

    def run(self, images: np.ndarray) -> tuple[Any, ...]:
        parts = [self._run(images[i : i + self.limit]) for i in range(0, len(images), self.limit)]
        return tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))

    def _run(self, images: np.ndarray) -> list[torch.Tensor]:
        pixels = torch.from_numpy(images).cuda()
        self.context.set_input_shape("images", tuple(pixels.shape))
        self.context.set_tensor_address("images", pixels.data_ptr())
        results = []
        for name in self.outputs:
            shape, kind = tuple(self.context.get_tensor_shape(name)), self.engine.get_tensor_dtype(name)
            value = torch.empty(shape, dtype=self.types[kind], device="cuda")
            self.context.set_tensor_address(name, value.data_ptr())
            results.append(value)
        stream = torch.cuda.current_stream()
        self.context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return [value.cpu() for value in results]


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
