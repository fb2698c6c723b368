"""Zero-cost scorers that read gradients at initialisation; all higher is better, all need torch.

Every function takes a network that it may change (BN statistics, gradients), images (B, 3, H, W) and a seed. The last is
AZ-NAS (Lee and Ham, CVPR 2024) from the paper's definitions: three measures of blocks, ranked with the MACs.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.scorers.probe import answer, features, prepare, primary_blocks, task_loss, weighted_layers


def _gradients(loss: Tensor, tensors: list[Tensor], create_graph: bool = False) -> list[Tensor]:
    """Gradients with zeros where the loss does not depend on a tensor (edges that lead nowhere)."""
    if not loss.requires_grad:
        return [torch.zeros_like(tensor) for tensor in tensors]
    found = torch.autograd.grad(loss, tensors, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(tensor) if g is None else g for tensor, g in zip(tensors, found, strict=True)]


def _weights(model: nn.Module) -> list[Tensor]:
    weights: list[Tensor] = [layer.weight for layer in weighted_layers(model)]  # type: ignore[misc]
    for weight in weights:
        weight.requires_grad_(True)
    return weights


def first_order(model: nn.Module, images: Tensor, seed: int = 0) -> dict[str, float]:
    """SNIP, gradient norm and Fisher from one forward and backward pass.

    snip: sum |w dL/dw| (Lee et al., ICLR 2019); grad_norm: sum over layers of the Euclidean norm of dL/dw;
    fisher: half the batch mean of (sum over the map of z dL/dz)^2, summed over channels of all layers (Theis et al.,
    2018; all three in this form in Abdelfattah et al., ICLR 2021).
    """
    prepare(model, train=True)
    weights = _weights(model)
    outputs: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        for layer in weighted_layers(model)
    ]
    loss = task_loss(model, images, seed)
    for hook in hooks:
        hook.remove()
    gradients = _gradients(loss, weights + outputs)
    of_weights, of_outputs = gradients[: len(weights)], gradients[len(weights) :]
    saliency = sum(float((w.detach() * g).abs().sum()) for w, g in zip(weights, of_weights, strict=True))
    norm = sum(float(g.norm()) for g in of_weights)
    fisher = 0.0
    for z, g in zip(outputs, of_outputs, strict=True):
        product = z.detach() * g
        per_channel = product.flatten(2).sum(2) if product.dim() == 4 else product
        fisher += 0.5 * float(per_channel.pow(2).mean(0).sum())
    return {"snip": saliency, "grad_norm": norm, "fisher": fisher}


def grasp(model: nn.Module, images: Tensor, seed: int = 0) -> float:
    """Gradient signal preservation, -sum w (H g), H the Hessian and g the gradient of the loss (Wang, ICLR 2020)."""
    prepare(model, train=True)
    weights = _weights(model)
    gradients = _gradients(task_loss(model, images, seed), weights, create_graph=True)
    flow = torch.stack([(g.detach() * g).sum() for g in gradients]).sum()
    curvature = _gradients(flow, weights)
    return -sum(float((w.detach() * h).sum()) for w, h in zip(weights, curvature, strict=True))


def synflow(model: nn.Module, images: Tensor, seed: int = 0) -> float:
    """ln of the synaptic flow, sum |w dR/dw| with |weights|, BN of a fresh network, an all-ones image (Tanaka 2020).

    Computed in float64. Without biases R is linear in the image, so biases are set to zero, and an overflow is met by a
    smaller image and a smaller R whose logarithms are added back. Data-free: of `images` only the shape is used. -inf
    where nothing flows.
    """
    prepare(model, train=False).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.zero_() if name.endswith("bias") else parameter.abs_()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
                module.reset_running_stats()
    weights = _weights(model)
    for exponent in (0.0, -300.0, -600.0):
        image = torch.full((1, *images.shape[1:]), math.exp(exponent), dtype=torch.float64)
        gradients = _gradients(features(model, image).sum() * math.exp(exponent), weights)
        flow = sum(float((w.detach() * g).sum()) for w, g in zip(weights, gradients, strict=True))
        if math.isfinite(flow):
            return math.log(flow) - 2 * exponent if flow > 0 else -math.inf
    return math.inf


def zico(model: nn.Module, images: Tensor, seed: int = 0, batches: int = 2) -> float:
    """Sum over layers of ln sum over weights of mean |g| / std |g| across batches (Li et al., ICLR 2023).

    The images are split into `batches` parts. Weights whose gradient does not vary are left out; a layer without any
    adds nothing.
    """
    prepare(model, train=True)
    weights = _weights(model)
    parts = images.chunk(batches)
    found = [_gradients(task_loss(model, part, seed, 2 * number), weights) for number, part in enumerate(parts)]
    score = 0.0
    for layer in zip(*found, strict=True):
        sizes = torch.stack([gradient.abs() for gradient in layer])
        # Not by sums of squares: the ratio lives on weights of nearly equal gradients, which cancellation would blur.
        mean, std = sizes.mean(0), sizes.std(0, unbiased=False)
        ratio = float((mean / std)[std > 0].sum())
        score += math.log(ratio) if ratio > 0 else 0.0
    return score


def zico_bc(model: nn.Module, images: Tensor, seed: int = 0, batches: int = 2, beta: float = 1.0) -> float:
    """zico - beta * sum over layers of ln (H W / sqrt C) of their output maps, against depth and thinness.

    ZiCo-BC, Bhardwaj et al., ICCV workshops 2023 (arXiv 2309.14666), whose beta is 1 for classification and detection.
    """
    excess: dict[nn.Module, float] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        cells = output.shape[2] * output.shape[3] if output.dim() == 4 else 1
        excess[module] = math.log(cells / output.shape[1] ** 0.5)

    hooks = [layer.register_forward_hook(keep) for layer in weighted_layers(model)]
    score = zico(model, images, seed, batches)
    for hook in hooks:
        hook.remove()
    return score - beta * math.fsum(excess.values())


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


def aznas(model: nn.Module, images: Tensor, seed: int = 0) -> dict[str, float]:
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
