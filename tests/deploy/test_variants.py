"""Torch in lower precision and compiled is the same detector, and what cannot be had says why in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nas.deploy.parity import TOLERANCES, verify
from nas.deploy.variants import TorchVariant, require_variant
from nas.errors import UserError


def test_bf16_finds_what_float32_finds(fused: nn.Module, pictures: list[np.ndarray]) -> None:
    network = TorchVariant(fused, precision="bf16").eval()
    assert (network.classes, network.image_size, network.end_to_end) == (fused.classes, 64, False)
    found = verify(fused, network, pictures, TOLERANCES["bf16"])
    assert not found.problem and found.detections > 50
    assert 0 < found.score_difference < 0.1
    with torch.inference_mode():
        scores, boxes = network(torch.from_numpy(pictures[0]))
    assert scores.dtype is boxes.dtype is torch.float32


def test_compiled_on_a_gpu_or_not_the_network_is_asked_once(fused: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda run, mode: told.append(mode) or run)
    network = TorchVariant(fused, compiled=True).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 64, 64))[0].shape[0] == 2
    assert told == ["default"]


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        (("torch", "int8"), "torch computes in no INT8 here"),
        (("onnx", "bf16"), "onnx files are written in fp32, fp16 or int8; bf16 is for torch alone"),
        (("openvino", "bf16"), "openvino files are written"),
        (("tensorrt", "fp16"), "TensorRT"),
        (("torch", "fp32", "nonsense"), "device 'nonsense' cannot be used"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(variant: tuple[str, ...], expected: str) -> None:
    if variant[0] == "tensorrt" and torch.cuda.is_available():
        pytest.skip("this machine may have TensorRT")
    with pytest.raises(UserError, match=expected) as error:
        require_variant(*variant)
    assert "\n" not in str(error.value)


def test_a_compiler_is_asked_for_before_anything_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    require_variant("torch_compile", "fp32")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        require_variant("torch_compile", "fp32")
