"""Exported files as networks: images in, scores and boxes out, whatever runs them; and what each says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.errors import UserError
from nas.models.passport import Passport
from nas.options import Resize, read_object

FORMAT = "maenas-export/1"
#: The key under which files carry it.
KEY = "maenas"


@dataclass(frozen=True)
class Metadata:
    """classes; side of the square input; whether rows are final (no NMS to follow); whether NMS is in the file; how pictures
    become inputs; its passport.

    Inputs are RGB, 0..255, (B, 3, S, S). With NMS inside the outputs are `scores` (B, K), `boxes` (B, K, 4) and
    `labels` (B, K), best first, padded with score 0 and label -1; otherwise `scores` (B, N, C) and `boxes` (B, N, 4).
    """

    classes: tuple[str, ...]
    image_size: int
    end_to_end: bool = False
    nms: bool = False
    precision: str = "fp32"
    resize: Resize = "stretch"
    passport: Passport | None = None

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    def to_dict(self) -> dict[str, object]:
        """As files hold it."""
        told = {"format": FORMAT, **asdict(self)}
        return {name: value for name, value in told.items() if value is not None}


def read_metadata(text: str | None, path: object) -> Metadata:
    """The metadata in a file's text; raises UserError naming the file if it has none, or one of another version."""
    try:
        data: Any = json.loads(text or "")
    except ValueError:
        data = None
    if not isinstance(data, Mapping):
        raise UserError(f"{path} does not say its classes and input size: it was not made by python -m nas.export")
    if data.get("format") != FORMAT:
        raise UserError(f"{path}: format is {data.get('format')!r}, this version reads {FORMAT!r}")
    return read_object(Metadata, {key: data[key] for key in data if key != "format"}, f"{path}: its metadata:")


class Runtime:
    """An exported detector: `runtime(images (B, 3, S, S), RGB 0..255)` -> scores (B, N, C), boxes (B, N, 4).

    batch: what a file of fixed batch takes at once (None: any); more images are run in turns, missing ones made up.
    Files with NMS inside return their rows in the same form (each row scores for one class) and are `end_to_end`.
    """

    num_classes: int
    squares_alone = True
    device = "cpu"  # where the file runs; images are taken, and results given, on the CPU
    packages: tuple[str, ...] = ()  # what runs it

    def __init__(self, metadata: Metadata, batch: int | None = None) -> None:
        self.metadata = metadata
        self.batch = batch
        self.classes = metadata.classes
        self.num_classes = len(metadata.classes)
        self.image_size = metadata.image_size
        self.resize = metadata.resize
        self.end_to_end = metadata.end_to_end or metadata.nms

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """The file's own outputs: scores, boxes, and labels if NMS is inside."""
        raise UserError(f"{type(self).__name__} cannot run")

    def __call__(self, images: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
        pixels = images.detach().cpu().numpy() if isinstance(images, Tensor) else images
        if pixels.ndim != 4 or pixels.shape[1:] != (3, self.image_size, self.image_size):
            raise UserError(f"the file takes images (B, 3, {self.image_size}, {self.image_size}), got {pixels.shape}")
        outputs = [torch.as_tensor(value) for value in self._in_turns(np.ascontiguousarray(pixels, np.float32))]
        if bool(outputs[0].isnan().any()):
            raise UserError("the exported file gives scores that are not numbers: export the checkpoint again")
        if not self.metadata.nms:
            return outputs[0], outputs[1]
        values, boxes, labels = outputs
        scores = values.new_zeros(*values.shape, self.num_classes)
        return scores.scatter_(2, labels.clamp(min=0)[..., None], values[..., None]), boxes

    def _in_turns(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        """`run` in pieces of the file's batch, the last one filled up with its last image."""
        count, batch = len(pixels), self.batch
        if batch is None or count == batch:
            return self.run(pixels)
        filled = np.concatenate([pixels, np.repeat(pixels[-1:], -count % batch, 0)])
        pieces = [self.run(filled[start : start + batch]) for start in range(0, len(filled), batch)]
        return tuple(np.concatenate(parts)[:count] for parts in zip(*pieces, strict=True))


class OnnxRuntime(Runtime):
    """An .onnx file in ONNX Runtime on the CPU, or on a GPU (cuda, cuda:1) where its provider is installed and asked for."""

    packages = ("onnxruntime",)

    def __init__(self, path: str | Path, device: str = "cpu", threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        kind, index = device_parts(device)
        providers: list[Any] = ["CPUExecutionProvider"]
        if kind == "cuda":
            providers = [("CUDAExecutionProvider", {"device_id": index})]
        elif kind != "cpu":
            raise UserError(f"device={device}: ONNX Runtime runs a file on cpu or cuda")
        if kind == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise UserError(
                f"device={device}: this onnxruntime has no CUDA; pip install onnxruntime-gpu, or device=cpu"
            )
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # the runtime's own exception types are not public
            raise UserError(f"{path} cannot be loaded by ONNX Runtime ({str(error).splitlines()[0]})") from None
        if kind == "cuda" and "CUDAExecutionProvider" not in self.session.get_providers():  # it falls back in silence
            raise UserError(
                f"device={device}: ONNX Runtime could not start CUDA; check its libraries, or use device=cpu"
            )
        self.device = device
        images = self.session.get_inputs()[0]
        batch = images.shape[0] if isinstance(images.shape[0], int) else None
        super().__init__(read_metadata(self.session.get_modelmeta().custom_metadata_map.get(KEY), path), batch)
        self.input = images.name
        self.outputs = ["scores", "boxes", *(["labels"] if self.metadata.nms else [])]

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(self.session.run(self.outputs, {self.input: images}))


def device_parts(device: str) -> tuple[str, int]:
    """Kind and number of a device: ("cuda", 1) for cuda:1. Raises UserError for what is none."""
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    return place.type, place.index or 0
