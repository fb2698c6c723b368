"""Zero-cost scorers that read gradients at initialisation; all higher is better, all need torch.

Every function takes a network that it may change (BN statistics, gradients), images (B, 3, H, W) and a seed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nas.scorers.probe import features, prepare, task_loss, weighted_layers


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


def snip(model: nn.Module, images: Tensor, seed: int = 0) -> float:
    """Connection sensitivity, sum |w dL/dw|."""
    return first_order(model, images, seed)["snip"]


def grad_norm(model: nn.Module, images: Tensor, seed: int = 0) -> float:
    """Sum over layers of the norm of the weight gradient."""
    return first_order(model, images, seed)["grad_norm"]


def fisher(model: nn.Module, images: Tensor, seed: int = 0) -> float:
    """Fisher information that the channels carry."""
    return first_order(model, images, seed)["fisher"]


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
