"""Distillation of neck features: CWD, MGD and mimic between any two detectors with the same strides."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.errors import UserError
from nas.loss import DISTILLATIONS
from nas.loss.distributed import mean_over_processes
from nas.models.base import at_least_float32


def channel_wise(student: Tensor, teacher: Tensor, tau: float = 1.0) -> Tensor:
    """CWD (arXiv 2011.13256) of maps (B, C, H, W): KL of channels' softmax over positions, tau^2 * sum / (B * C)."""
    batch, channels = student.shape[:2]
    target = F.log_softmax(teacher.flatten(2) / tau, -1)
    log_p = F.log_softmax(student.flatten(2) / tau, -1)
    return F.kl_div(log_p, target, reduction="sum", log_target=True) * (tau**2 / (batch * channels))


def mimic(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two maps."""
    return F.mse_loss(student, teacher)


class MaskedGeneration(nn.Module):
    """MGD (arXiv 2205.01529): rebuild the teacher's map from a student's map with `masked` of its positions hidden.

    Sum of squared errors / B times `scale`; the mask is drawn from torch's generator, the same for all channels.
    """

    def __init__(self, channels: int, masked: float = 0.65, scale: float = 2e-5) -> None:
        super().__init__()
        self.masked, self.scale = masked, scale
        self.generator = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        batch, _, height, width = student.shape
        visible = torch.rand(batch, 1, height, width, device=student.device) > self.masked
        return (self.generator(student * visible) - teacher).square().sum() * (self.scale / batch)


class Distiller(nn.Module):
    """Loss between neck maps: per level a trainable 1x1 adapter, affine-free batch statistics on both, then `kind`.

    The statistics are always those of the batch (DAMO-YOLO's way). Adapters and MGD generators are trained with the
    detector and stored with the training state.
    """

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        kind: str = "cwd",
        weight: float = 1.0,
        tau: float = 1.0,
    ) -> None:
        super().__init__()
        if kind not in DISTILLATIONS:
            raise UserError(f"distill.kind must be one of {', '.join(DISTILLATIONS)}, got {kind!r}")
        if len(student_channels) != len(teacher_channels):
            raise UserError(f"student and teacher have {len(student_channels)} and {len(teacher_channels)} neck levels")
        pairs = zip(student_channels, teacher_channels, strict=True)
        self.adapters = nn.ModuleList(nn.Conv2d(s, t, 1) for s, t in pairs)
        self.student_norms = nn.ModuleList(_batch_statistics(t) for t in teacher_channels)
        self.teacher_norms = nn.ModuleList(_batch_statistics(t) for t in teacher_channels)
        self.generators = nn.ModuleList(MaskedGeneration(t) for t in teacher_channels if kind == "mgd")
        self.kind, self.weight, self.tau = kind, weight, tau

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The weighted scalar loss, summed over levels; maps (B, C, H, W) of equal size per level."""
        with torch.autocast(student[0].device.type, enabled=False):
            total = torch.zeros((), device=student[0].device)
            for level, (own, other) in enumerate(zip(student, teacher, strict=True)):
                if own.shape[-2:] != other.shape[-2:]:
                    raise UserError(
                        f"neck level {level}: the student's map is {tuple(own.shape[-2:])}, the teacher's "
                        f"{tuple(other.shape[-2:])}; a teacher needs the same strides"
                    )
                adapted = self.student_norms[level](self.adapters[level](at_least_float32(own)))
                target = self.teacher_norms[level](at_least_float32(other.detach()))
                if self.kind == "cwd":
                    total = total + channel_wise(adapted, target, self.tau)
                elif self.kind == "mimic":
                    total = total + mimic(adapted, target)
                else:
                    total = total + self.generators[level](adapted, target)
        return total * self.weight


def _batch_statistics(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-5, affine=False, track_running_stats=False)


def distill_weight(position: float, total: float, start: float = 1.0, end: float = 0.1) -> float:
    """Cosine from `start` to `end` over the whole training; `position` and `total` in iterations."""
    return start - (start - end) * (1 - math.cos(math.pi * position / total)) / 2


def check_not_zero(loss: Tensor) -> None:
    """Raise UserError for a distillation loss of exactly zero: then nothing is being distilled."""
    if mean_over_processes(loss).item() == 0.0:
        raise UserError(
            "the distillation loss is exactly 0: the teacher's neck maps are constant or unused; check distill.teacher"
        )
