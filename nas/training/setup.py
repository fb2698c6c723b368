"""What a training needs before its loop: the processes, the detector with the data's classes, the frozen teacher, and
the module that is trained."""

from __future__ import annotations

import atexit
import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import DoublePrecision
from lightning_fabric.strategies import DDPStrategy, Strategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nas.errors import UserError
from nas.loss.distill import Distiller
from nas.loss.distributed import leave_processes
from nas.models.base import DetectorModule, Origin, RawPrediction, class_names, numbered
from nas.models.baselines import BASELINES, build_baseline
from nas.models.build import build_model
from nas.models.checkpoint import load_checkpoint
from nas.models.detector import DetectionModel, build_detector
from nas.models.head import OneToOneHead
from nas.options import Resize
from nas.spec import Spec, require_side
from nas.training.options import DEVICE

#: What a training starts from: a module, a name, a spec, a spec file, or a checkpoint.
Source = nn.Module | Spec | str | Path


class WholeDouble(DoublePrecision):
    """Float64 from the images to the losses (Fabric's own gives outputs back in float32)."""

    def convert_output(self, data: object) -> object:
        """Outputs as they are."""
        return data


def device_place(device: str) -> str:
    """cpu, cuda or cuda:1, for device=auto, cpu, cuda or cuda:N; UserError for another name or a GPU that is not there."""
    kind, _, number = device.partition(":")
    if not DEVICE.test(device):
        raise UserError(f"device must be {DEVICE.text}, got {device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"device={device}: no usable GPU is found; check the driver and the torch build, or use device=cpu"
        )
    if number and int(number) >= torch.cuda.device_count():
        raise UserError(f"device={device}: this machine has {torch.cuda.device_count()} GPUs, numbered from 0")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def make_fabric(device: str = "auto", precision: str = "auto", shared_norms: bool = True) -> Fabric:
    """Fabric for one process, or for all that torchrun started (its environment tells).

    device: auto, cpu, cuda or cuda:N; precision: see `TrainerOptions`. Several processes use nccl on GPUs and gloo on the CPU.
    """
    kind, _, number = device_place(device).partition(":")
    if precision == "fp16" and kind == "cpu":
        raise UserError("trainer.precision=fp16 needs a GPU; use bf16 or fp32 on the CPU")
    if precision == "auto":
        # Older cards only emulate bf16, slowly, and torch.cuda.is_bf16_supported() counts that as well.
        native = kind == "cuda" and torch.cuda.get_device_capability(int(number or 0)) >= (8, 0)
        precision = "fp32" if kind == "cpu" else "bf16" if native else "fp16"
    arithmetic: dict[str, dict[str, Any]] = {
        "fp32": {"precision": "32-true"},
        "bf16": {"precision": "bf16-mixed"},
        "fp16": {"precision": "16-mixed"},
        "fp64": {"plugins": [WholeDouble()]},
    }
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    strategy: str | Strategy = "auto"
    if world > 1 and number:
        raise UserError(f"device={device} is one GPU, torchrun gives each process its own: leave device out")
    if world > 1:
        nccl = kind == "cuda" and torch.distributed.is_nccl_available()
        strategy = DDPStrategy(process_group_backend="nccl" if nccl else "gloo", **_buffers(sync=not shared_norms))
    fabric = Fabric(
        accelerator=kind,
        devices=local if world > 1 else [int(number)] if number else 1,
        num_nodes=max(world // max(local, 1), 1),
        strategy=strategy,
        **arithmetic[precision],
    )
    fabric.launch()
    if world > 1:
        atexit.register(leave_processes)
    return fabric


def _buffers(sync: bool) -> dict[str, Any]:
    """DistributedDataParallel's option for copying the first process's buffers at every forward, as torch spells it."""
    known = inspect.signature(DistributedDataParallel).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": sync}


def prepare_detector(
    source: Source,
    classes: Sequence[str],
    image_size: int | None,
    one_to_one: bool | None = None,
    resize: Resize | None = None,
) -> DetectorModule:
    """The detector to train, with the data's classes, and the image size, head and resizing that are wanted.

    source: a module, a name, a spec, a spec file, or a checkpoint. A checkpoint of other classes keeps all weights
    except the layers whose size depends on the classes. Raises UserError if a module has another number of classes, and
    for a form that was merged or fused for deployment.
    """
    classes = tuple(classes)
    if isinstance(source, nn.Module):
        detector = cast(DetectorModule, source)
        if detector.num_classes != len(classes):
            raise UserError(
                f"the model has {detector.num_classes} classes, the data {len(classes)}: build it with these"
            )
        require_training_form(detector)
        detector.classes = classes
    elif isinstance(source, str | Path) and str(source).endswith(".safetensors"):
        detector = adapt_classes(load_checkpoint(source), classes)
    else:
        detector = cast(DetectorModule, build_model(source, classes=classes))
        if not hasattr(detector, "predict_raw"):
            raise UserError(f"{source} is a backbone: to train it as a detector give it a neck and a head")
    if one_to_one is not None:
        detector = _with_head(detector, one_to_one)
    detector.resize = resize or detector.resize
    if image_size is not None:
        detector.image_size = require_side(image_size)
        if isinstance(detector, DetectionModel):
            detector.spec = replace(detector.spec, image_size=image_size)
    return detector


def require_training_form(detector: DetectorModule) -> None:
    """UserError for a detector whose branches were merged or whose BatchNorms were folded: it would train wrongly."""
    if not isinstance(detector, DetectionModel) and getattr(detector, "name", None) not in BASELINES:
        return  # a module of somebody else: nothing is known of its form
    with torch.device("meta"):
        whole = _rebuild(detector, class_names(detector.num_classes, None))
    norms, all_norms = (sum("running_mean" in name for name in model.state_dict()) for model in (detector, whole))
    if detector.state_dict().keys() != whole.state_dict().keys():
        raise UserError(
            f"{_source(detector)} is in its form for deployment ({norms} of {all_norms} BatchNorms are left) and cannot be "
            "trained on: give the checkpoint that it was made from, such as best.safetensors or last.safetensors of the training"
        )


def adapt_classes(detector: DetectorModule, classes: Sequence[str]) -> DetectorModule:
    """The detector for other classes: itself if they are the same or its own are mere numbers, else a new one with
    all other weights.

    Raises UserError for a form for deployment.
    """
    require_training_form(detector)
    classes = tuple(classes)
    if tuple(detector.classes) == classes:
        return detector
    if len(detector.classes) == len(classes) and numbered(detector.classes):
        detector.classes = classes
        return detector
    fresh = _rebuild(detector, class_names(len(classes), classes))
    _take(fresh, detector.state_dict(), _source(detector), same_classes=False)
    return fresh


def _with_head(detector: DetectorModule, one_to_one: bool) -> DetectorModule:
    """The detector with a head with or without NMS; a head that is made one-to-one starts both its branches alike."""
    if not isinstance(detector, DetectionModel):
        raise UserError(
            f"head.one_to_one is of ZeroHead; {getattr(detector, 'name', 'this module')} has a head of its own"
        )
    if detector.spec.head.one_to_one == one_to_one:
        return detector
    head = replace(detector.spec.head, one_to_one=one_to_one)
    fresh = build_detector(replace(detector.spec, head=head), classes=detector.classes)
    fresh.resize = detector.resize
    _take(fresh, detector.state_dict(), _source(detector), same_classes=True)
    if isinstance(fresh.head, OneToOneHead):
        fresh.head.single.load_state_dict(detector.head.state_dict())
    return fresh


def start_from(detector: DetectorModule, path: str | Path) -> None:
    """Give a detector all entries of another network's checkpoint that fit by name and shape; its `origin` counts them.

    The layers of the classes are taken over if the classes are the same. Raises UserError if nothing fits, and for a
    form for deployment.
    """
    other = load_checkpoint(path)
    require_training_form(other)
    same = tuple(other.classes) == tuple(detector.classes)
    if not _take(detector, other.state_dict(), str(path), same):
        raise UserError(
            f"weights={path}: none of its entries fits the network; take those of a more similar one, or none"
        )


def _take(detector: DetectorModule, state: Mapping[str, Tensor], source: str, same_classes: bool) -> int:
    """Copy the entries that fit, without those whose shape depends on the classes unless they are the same."""
    shapes = {name: value.shape for name, value in detector.state_dict().items()}
    free = shapes
    if not same_classes:
        with torch.random.fork_rng([]):
            more = _rebuild(detector, class_names(len(detector.classes) + 1, None)).state_dict()
        free = {name: value.shape for name, value in more.items()}
    kept = {
        name: state[name]
        for name, shape in shapes.items()
        if name in state and free[name] == shape == state[name].shape
    }
    detector.load_state_dict(kept, strict=False)
    detector.origin = Origin.of(detector, kept, source)
    return len(kept)


def _source(detector: DetectorModule) -> str:
    origin = getattr(detector, "origin", None)
    return origin.source if origin is not None else "the model"


def _rebuild(detector: DetectorModule, classes: Sequence[str]) -> DetectorModule:
    if isinstance(detector, DetectionModel):
        fresh: DetectorModule = build_detector(detector.spec, classes=classes)
    else:
        fresh = build_baseline(detector.name, len(classes), detector.image_size, list(classes))
    fresh.resize = detector.resize
    return fresh


class TrainingNetwork(nn.Module):
    """One forward for everything that has gradients, as DistributedDataParallel wants it.

    Modules named in `freeze` keep weights and BatchNorm statistics.
    """

    def __init__(
        self, detector: DetectorModule, distiller: Distiller | None = None, freeze: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.detector, self.distiller = detector, distiller
        self._frozen: list[str] = list(freeze)
        known = dict(detector.named_modules())
        for name in self._frozen:
            if name not in known or not name:
                top = ", ".join(child for child, _ in detector.named_children())
                raise UserError(f"trainer.freeze: the model has no module {name!r}; it has {top} and modules inside")
            known[name].requires_grad_(False)

    def train(self, mode: bool = True) -> TrainingNetwork:
        super().train(mode)
        known = dict(self.detector.named_modules())
        for name in self._frozen:
            known[name].eval()
        return self

    def forward(self, images: Tensor, teacher: list[Tensor] | None = None) -> tuple[RawPrediction, Tensor | None]:
        """Raw prediction of images (B, 3, H, W), and the distillation loss if the teacher's neck maps are given."""
        raw = self.detector.predict_raw(images)
        loss = None
        if self.distiller is not None and teacher is not None:
            loss = self.distiller(raw.neck, teacher)
        elif self.distiller is not None:  # every parameter must have a gradient in a distributed training
            loss = torch.stack([parameter.sum() for parameter in self.distiller.parameters()]).sum() * 0.0
        auxiliary = raw.auxiliary._replace(neck=[]) if raw.auxiliary is not None else None
        return raw._replace(neck=[], auxiliary=auxiliary), loss


@torch.no_grad()
def neck_channels(detector: DetectorModule, image_size: int = 64) -> list[int]:
    """Widths of the three neck maps."""
    training = detector.training
    parameter = next(detector.parameters())
    maps = detector.eval().features(torch.zeros(1, 3, image_size, image_size, device=parameter.device))["neck"]
    detector.train(training)
    return [x.shape[1] for x in maps]


def load_teacher(path: str | Path, student: DetectorModule) -> DetectorModule:
    """A frozen detector in eval mode whose neck has the student's strides."""
    if not str(path).endswith(".safetensors"):
        raise UserError(f"distill.teacher must be a checkpoint (.safetensors), got {path}")
    teacher = load_checkpoint(path)
    if tuple(teacher.strides) != tuple(student.strides):
        raise UserError(f"{path} has strides {teacher.strides}, the student {student.strides}: they must be the same")
    return teacher.eval().requires_grad_(False)
