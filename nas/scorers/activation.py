"""Zero-cost scorers that read activations at initialisation; all higher is better, all need torch.

Every function takes a network that it may change (BN statistics, weights), images (B, 3, H, W) and a seed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.scorers.probe import activation_layers, answer, features, prepare, weighted_layers

_BatchNorm = nn.modules.batchnorm._BatchNorm


def _several(name: str, images: Tensor) -> None:
    if images.shape[0] < 2:
        raise UserError(f"{name} compares images: give it a batch of at least 2, got {images.shape[0]}")


@torch.no_grad()
def naswot(model: nn.Module, images: Tensor, seed: int = 0) -> float:
    """ln |det K| with K_ij the units whose on/off state images i and j share (Mellor et al., ICML 2021).

    A unit is on where the input of its activation is positive. -inf where two images cannot be told apart.
    """
    _several("naswot", images)
    prepare(model, train=True)
    kernel = torch.zeros(images.shape[0], images.shape[0], dtype=torch.float64)

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        code = (inputs[0] > 0).flatten(1).float()
        kernel.add_((code @ code.T + (1 - code) @ (1 - code).T).double())

    hooks = [layer.register_forward_pre_hook(count) for layer in activation_layers(model)]
    answer(model, images)
    for hook in hooks:
        hook.remove()
    return log_determinant(kernel)


@torch.no_grad()
def swap(model: nn.Module, images: Tensor, seed: int = 0) -> float:
    """Number of different patterns in which the units of all activations are on over the images (SWAP, Peng, ICLR 2024).

    A unit's pattern is its on/off state, as in naswot, on each of 2 to 64 images; without the paper's factor for size.
    """
    _several("swap", images)
    if images.shape[0] > 64:
        raise UserError(f"swap tells patterns over at most 64 images apart: got {images.shape[0]}")
    prepare(model, train=True)
    places = torch.arange(images.shape[0])[:, None]
    seen = torch.empty(0, dtype=torch.int64)

    def collect(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal seen
        patterns = ((inputs[0] > 0).flatten(1).long() << places).sum(0)  # one bit an image
        seen = torch.cat([seen, patterns]).unique()

    hooks = [layer.register_forward_pre_hook(collect) for layer in activation_layers(model)]
    answer(model, images)
    for hook in hooks:
        hook.remove()
    return float(len(seen))


def log_determinant(kernel: Tensor) -> float:
    """ln |det| of a square matrix, -inf if singular."""
    return float(torch.linalg.slogdet(kernel).logabsdet)


def jacov(model: nn.Module, images: Tensor, seed: int = 0, epsilon: float = 1e-5) -> float:
    """-sum (ln l + 1/l) over eigenvalues l + 1e-5 of the correlation of input Jacobians (Mellor et al., v1, 2020)."""
    _several("jacov", images)
    prepare(model, train=True)
    inputs = images.clone().requires_grad_(True)
    response = features(model, inputs).sum()
    if not response.requires_grad:
        return -math.inf
    (jacobian,) = torch.autograd.grad(response, inputs, allow_unused=True)
    if jacobian is None:
        return -math.inf
    correlation = torch.corrcoef(jacobian.flatten(1).double())
    if not bool(torch.isfinite(correlation).all()):
        return -math.inf
    eigenvalues = torch.linalg.eigvalsh(correlation).clamp_min(0) + epsilon
    return -float((eigenvalues.log() + 1 / eigenvalues).sum())


@torch.no_grad()
def zen(model: nn.Module, images: Tensor, seed: int = 0, step: float = 0.01) -> float:
    """ln mean ||f(x + step e) - f(x)|| before pooling, plus sum of ln BN deviations (Lin et al., ICCV 2021).

    Weights, x and e are Gaussian; of `images` only the shape is used. The paper removes residual links first; the links
    of a module cannot be removed from outside, so they stay. The last 4-D map is the feature before pooling.
    """
    prepare(model, train=True)
    generator = torch.Generator().manual_seed(seed)
    for layer in weighted_layers(model):
        weight: Tensor = layer.weight  # type: ignore[assignment]
        weight.copy_(torch.randn(weight.shape, generator=generator))
    x = torch.randn(images.shape, generator=generator)
    moved = x + step * torch.randn(images.shape, generator=generator)
    last: list[Tensor] = []
    logarithms: list[float] = []

    def keep_map(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            last[:] = [output]

    def keep_deviation(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        variance = float(inputs[0].var((0, 2, 3), unbiased=False).mean())
        logarithms.append(0.5 * math.log(variance) if variance > 0 else 0.0)

    norms = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    hooks = [layer.register_forward_hook(keep_map) for layer in model.modules() if not list(layer.children())]
    watchers = [layer.register_forward_pre_hook(keep_deviation) for layer in norms]
    answer(model, x)
    before = last[0]
    for watcher in watchers:
        watcher.remove()
    answer(model, moved)
    difference = float((last[0] - before).flatten(1).norm(dim=1).mean())
    for hook in hooks:
        hook.remove()
    return (math.log(difference) if difference > 0 else -math.inf) + sum(logarithms)


@torch.no_grad()
def meco(model: nn.Module, images: Tensor, seed: int = 0) -> float:
    """Sum over convolutions of the least eigenvalue of the correlation of channel maps (Jiang et al., NeurIPS 2023).

    The first of two random images of the shape of `images` (one alone has no BN statistics in a 1x1 map). A layer with
    more channels than cells has eigenvalue 0; channels that do not vary count as uncorrelated with all.
    """
    prepare(model, train=True)
    pair = torch.randn((2, *images.shape[1:]), generator=torch.Generator().manual_seed(seed))
    total = 0.0

    def least(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        channels = output[0].flatten(1)
        if channels.shape[1] > channels.shape[0] > 1:
            correlation = torch.corrcoef(channels).nan_to_num(0.0, 0.0, 0.0)
            total += max(0.0, float(torch.linalg.eigvalsh(correlation)[0]))

    layers = [layer for layer in weighted_layers(model) if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(least) for layer in layers]
    answer(model, pair)
    for hook in hooks:
        hook.remove()
    return total
