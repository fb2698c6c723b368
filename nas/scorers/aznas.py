"""AZ-NAS (Lee and Ham, CVPR 2024) from the paper's definitions: three measures of blocks, ranked with the MACs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.scorers.probe import answer, prepare, primary_blocks


def spectrum_entropy(features: Tensor) -> float:
    """Entropy of the normalised PCA spectrum of a map (B, C, H, W): ln C if isotropic, 0 at rank one."""
    points = features.detach().transpose(0, 1).flatten(1)
    points = points - points.mean(1, keepdim=True)
    variances = torch.linalg.eigvalsh(points @ points.T / points.shape[1]).clamp_min(0)
    total = float(variances.sum())
    if not total > 0:
        return 0.0
    shares = variances / total
    return -float((shares * shares.clamp_min(1e-30).log()).sum())


def largest_singular_value(source: Tensor, output: Tensor, generator: torch.Generator) -> float:
    """Spectral norm of the position-averaged Jacobian of a block, estimated with one Rademacher back-propagation.

    E[v v'] = I makes the average of g v' over positions an estimate of the transposed Jacobian, where v is sent into
    the output and g arrives at the input. A finer input is folded into channels: both lie on the output's grid.
    """
    signs = torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1
    if not (output.requires_grad and source.requires_grad):
        return 0.0
    (arrived,) = torch.autograd.grad(output, source, signs, retain_graph=True, allow_unused=True)
    if arrived is None:
        return 0.0
    if arrived.shape[-1] != signs.shape[-1]:
        arrived = F.pixel_unshuffle(arrived, arrived.shape[-1] // signs.shape[-1])
    g, v = arrived.transpose(0, 1).flatten(1), signs.transpose(0, 1).flatten(1)
    return float(torch.linalg.matrix_norm(g @ v.T / v.shape[1], 2))


def aznas_measures(model: nn.Module, images: Tensor, seed: int = 0) -> dict[str, float]:
    """az_expressivity, az_progressivity, az_trainability of a network with Gaussian input and Kaiming weights.

    Expressivity is the sum of spectrum entropies of block outputs, progressivity their least increase from block to
    block, trainability the mean of 2 - s - 1/s with s the spectral norm of a block's Jacobian (0 is ideal). Of `images`
    only the shape is used.
    """
    prepare(model, train=True)
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
    sources: list[Tensor] = []
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sources.append(inputs[0])
        outputs.append(output)

    hooks = [block.register_forward_hook(keep) for block in primary_blocks(model)]
    answer(model, torch.randn(images.shape, generator=generator))
    for hook in hooks:
        hook.remove()
    entropies = [spectrum_entropy(output) for output in outputs]
    pairs = list(zip(sources, outputs, strict=True))[1:]
    norms = [largest_singular_value(source, output, generator) for source, output in pairs]
    trainability = [2 - norm - 1 / norm if norm > 0 else -math.inf for norm in norms]
    return {
        "az_expressivity": sum(entropies),
        "az_progressivity": min(later - earlier for earlier, later in zip(entropies, entropies[1:], strict=False)),
        "az_trainability": sum(trainability) / len(trainability),
    }


def az_expressivity(model: nn.Module, images: Tensor, seed: int = 0) -> float:
    """Sum of the spectrum entropies of all block outputs."""
    return aznas_measures(model, images, seed)["az_expressivity"]


def az_progressivity(model: nn.Module, images: Tensor, seed: int = 0) -> float:
    """Least increase of the spectrum entropy from block to block."""
    return aznas_measures(model, images, seed)["az_progressivity"]


def az_trainability(model: nn.Module, images: Tensor, seed: int = 0) -> float:
    """Mean of 2 - s - 1/s over blocks, s the spectral norm of a block's Jacobian."""
    return aznas_measures(model, images, seed)["az_trainability"]
