"""Optimisers, their parameter groups, and rate and momentum as plain functions of the position in the training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn

from nas.errors import UserError
from nas.training.options import OptimizerOptions, ScheduleOptions

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Schedule:
    """Warm-up, decay, constant tail; positions and lengths in iterations (fractions allowed), whatever `options` says.

    base: peak learning rate. Of the options: end_ratio: final / base; warmup_power: 2 is DAMO-YOLO's quadratic warm-up, 1
    linear; warmup_bias: the biases' rate at the start of the warm-up, as a multiple of `base` (YOLO: 10), from which it goes
    linearly to base; momentum is raised linearly from warmup_momentum.
    """

    base: float
    total: float
    warmup: float = 0.0
    tail: float = 0.0
    momentum: float = 0.9
    options: ScheduleOptions = field(default_factory=ScheduleOptions)

    def learning_rate(self, position: float, bias: bool = False) -> float:
        """Rate of the iteration that starts at `position`."""
        final = self.base * self.options.end_ratio
        if position < self.warmup:
            share = position / self.warmup
            if bias and self.options.warmup_bias is not None:
                return self.base * (self.options.warmup_bias + (1 - self.options.warmup_bias) * share)
            return self.base * share**self.options.warmup_power
        if position >= self.total - self.tail:
            return self.base if self.options.shape == "constant" else final
        share = (position - self.warmup) / max(self.total - self.warmup - self.tail, 1e-9)
        if self.options.shape == "constant":
            return self.base
        if self.options.shape == "linear":
            return self.base + (final - self.base) * share
        return final + 0.5 * (self.base - final) * (1 + math.cos(math.pi * share))

    def momentum_at(self, position: float) -> float:
        """Momentum (SGD) or first beta (AdamW) of that iteration."""
        if self.options.warmup_momentum is None or position >= self.warmup:
            return self.momentum
        return self.options.warmup_momentum + (self.momentum - self.options.warmup_momentum) * position / self.warmup


def fraction_done(step: int, total_steps: int, elapsed: float, minutes: float | None) -> float:
    """How much of the training is over, 0 to 1: by steps, or by the clock where a time budget is nearer its end.

    `elapsed` in seconds. With a time budget the result depends on the machine's speed, so such a run repeats only
    approximately; without one it is a pure function of the step.
    """
    share = step / total_steps
    if minutes is not None:
        share = max(share, elapsed / (60 * minutes))
    return min(share, 1.0)


def parameter_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict]:
    """Three groups named weights, norms and biases; only the weights decay. Frozen parameters are left out."""
    groups: dict[str, list[nn.Parameter]] = {"weights": [], "norms": [], "biases": []}
    for root in modules:
        for module in root.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.requires_grad:
                    continue
                if name == "bias" or name.endswith("_bias"):
                    groups["biases"].append(parameter)
                elif isinstance(module, _NORMS):
                    groups["norms"].append(parameter)
                else:
                    groups["weights"].append(parameter)
    return [
        {"name": name, "params": parameters, "weight_decay": weight_decay if name == "weights" else 0.0}
        for name, parameters in groups.items()
        if parameters
    ]


def make_optimizer(modules: Iterable[nn.Module], options: OptimizerOptions) -> torch.optim.Optimizer:
    """The optimiser of `options`; its rates are set before every step by `set_rates`."""
    groups = parameter_groups(modules, options.weight_decay)
    if not groups:
        raise UserError("nothing is left to train: every parameter is frozen")
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=options.momentum, nesterov=options.momentum > 0)
    return torch.optim.AdamW(groups, lr=0.0, betas=(options.momentum, 0.999))


def set_rates(optimizer: torch.optim.Optimizer, schedule: Schedule, position: float) -> float:
    """Write rate and momentum of the iteration at `position` into every group; returns the weights' rate."""
    momentum = schedule.momentum_at(position)
    for group in optimizer.param_groups:
        group["lr"] = schedule.learning_rate(position, bias=group["name"] == "biases")
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum
    return schedule.learning_rate(position)
