"""Parameter groups and optimisers: decay for weights, none for norms and biases; rate from the batch size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import nn

from nas.errors import UserError
from nas.options import NotNegative, OneOf, Positive
from nas.training.schedule import Schedule

_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


@dataclass
class OptimizerOptions:
    """name: sgd (Nesterov) or adamw; lr_per_image times the batch of one optimiser step is the peak rate, unless `lr`
    gives the peak itself."""

    name: Annotated[str, OneOf("sgd", "adamw")] = "sgd"
    lr_per_image: Positive = 0.01 / 64
    lr: Positive | None = None
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    weight_decay: NotNegative = 5e-4

    def peak_rate(self, batch: int) -> float:
        """Peak learning rate for `batch` images a step (all processes and accumulated batches together)."""
        return self.lr if self.lr is not None else self.lr_per_image * batch


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
