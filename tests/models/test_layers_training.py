"""What layers do in training mode that they do not in eval mode."""

from __future__ import annotations

import torch

from nas.models.layers import RepConv, convolution


def test_a_strided_point_convolution_samples_first_and_gives_the_same() -> None:
    torch.manual_seed(0)
    layer = convolution(8, 32, 1, 2)
    images = torch.rand(2, 8, 17, 20)
    trained = layer.train()(images)
    assert torch.allclose(trained, layer.eval()(images), atol=1e-6)


def test_channels_last_training_of_a_strided_branch_is_safe() -> None:
    layer = RepConv(8, 32, 3, 2).train().to(memory_format=torch.channels_last)
    images = torch.rand(16, 8, 80, 80).contiguous(memory_format=torch.channels_last).requires_grad_()
    for _ in range(3):
        layer(images).sum().backward()
    assert images.grad is not None and torch.isfinite(images.grad).all()
