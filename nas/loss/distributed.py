"""What several training processes share: means over processes and batch statistics over the whole batch."""

from __future__ import annotations

import gc

import torch
from torch import Tensor, nn
from torch import distributed as dist

from nas.models.base import at_least_float32


def world_size() -> int:
    """Processes of this training; 1 where none was set up."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def leave_processes() -> None:
    """End this process's part in the group, joining its threads.

    A thread of gloo that lets go of its last tensor while the interpreter ends would abort the process. The group lives
    as long as a wrapped module does, and those are in reference cycles.
    """
    if dist.is_available() and dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a detached tensor over all processes; every process must call it."""
    value = value.detach()
    if world_size() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / world_size()


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm over the batch of all processes; unlike torch's SyncBatchNorm it also runs on the CPU (gloo).

    Every process must hold the same number of values, as the training's sampler guarantees.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(input)
        x = at_least_float32(input)
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        # In float64, because a mean far above the deviation would leave nothing of their difference in float32.
        first = mean.double()
        moments = torch.stack([first, variance.double() + first.square()])
        first, second = _MeanOverProcesses.apply(moments)
        mean, variance = first.to(x.dtype), (second - first.square()).clamp(min=0).to(x.dtype)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                count = input.numel() // input.shape[1] * world_size()
                momentum = 0.1 if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * (count / max(count - 1, 1)), momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
        scale = (variance + self.eps).rsqrt()
        shift = -mean * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return (x * scale[:, None, None] + shift[:, None, None]).to(input.dtype)


class _MeanOverProcesses(torch.autograd.Function):
    """All-reduced mean with the matching gradient (the mean of all processes' gradients)."""

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, value: Tensor) -> Tensor:  # type: ignore[override]
        return mean_over_processes(value)

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return mean_over_processes(gradient)


def share_batch_norm(module: nn.Module, device_type: str) -> nn.Module:
    """Replace every BatchNorm2d by its all-process form: torch's SyncBatchNorm on CUDA, SharedBatchNorm elsewhere."""
    if device_type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = SharedBatchNorm
    return module
