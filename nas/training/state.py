"""The full state of a training in one file, so that it goes on bit by bit where it was killed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from lightning_fabric.plugins import Precision
from safetensors.torch import save
from torch import Tensor

from nas.data.loader import Loader
from nas.errors import UserError, shown
from nas.files import write_atomic
from nas.models.base import DetectorModule
from nas.models.checkpoint import read_tensors
from nas.models.torch_file import read_torch
from nas.training.averaging import Ema
from nas.training.setup import TrainingNetwork

FORMAT = "maenas-training/1"
LAST_STATE = "last.state"


@dataclass
class Position:
    """How far the training is: optimiser steps, seconds of wall time, the best validation, and those without progress.

    validated: the last validated step; an epoch that ended without its validation is validated when resumed.
    """

    step: int = 0
    seconds: float = 0.0
    best: float = -1.0
    best_epoch: int = 0
    stale: int = 0
    validated: int = 0


class State(TypedDict):
    """What `last.state` holds; optimizer and precision are what torch and Fabric tell of theirs."""

    format: str
    fingerprint: dict[str, object]
    network: dict[str, Tensor]
    ema: dict[str, Tensor]
    ema_updates: int
    optimizer: dict[str, object]
    loader: dict[str, float | None]
    precision: dict[str, object]
    position: dict[str, float]


@dataclass
class TrainingParts:
    """Everything whose state decides the rest of the training.

    network: detector with adapters (raw weights); precision: Fabric's plug-in, which holds the gradient scaler.
    Random numbers need no state: every step seeds torch from (seed, step, rank).
    """

    network: TrainingNetwork
    ema: Ema[DetectorModule]
    optimizer: torch.optim.Optimizer
    loader: Loader
    precision: Precision
    position: Position

    def state(self, fingerprint: Mapping[str, object]) -> State:
        """Plain containers and tensors; `fingerprint` is what a resumed run must have in common."""
        return {
            "format": FORMAT,
            "fingerprint": dict(fingerprint),
            "network": self.network.state_dict(),
            "ema": self.ema.model.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "loader": self.loader.state_dict(),
            "precision": self.precision.state_dict(),
            "position": asdict(self.position),
        }

    def load(self, state: State, fingerprint: Mapping[str, object]) -> None:
        """Take over a state; UserError if it belongs to another training."""
        known = state.get("fingerprint")
        if not isinstance(known, dict):
            raise UserError(f"cannot resume: {LAST_STATE} does not say of which training it is")
        for key, value in fingerprint.items():
            if known.get(key) != value:
                raise UserError(
                    f"cannot resume: {key} was {shown(known.get(key))} and is {shown(value)} now; "
                    "restore it or start a new run"
                )
        try:
            self.network.load_state_dict(state["network"])
            self.ema.model.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"cannot resume: the model is another one ({str(error).splitlines()[0]})") from None
        try:
            self.ema.updates = int(state["ema_updates"])
            self.loader.load_state_dict(state["loader"])
            self.precision.load_state_dict(state["precision"])
            for name, default in asdict(Position()).items():
                setattr(self.position, name, type(default)(state["position"][name]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"cannot resume: {LAST_STATE} is damaged ({type(error).__name__}: {error})") from None


def write_state(folder: Path, state: State) -> Path:
    """Write `last.state` atomically; if the disk is full the previous one stays, and a UserError says so.

    It is a safetensors file: the tensors, and in its header as JSON the containers that they come from.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_packed(state, tensors))
    try:
        return write_atomic(folder / LAST_STATE, save(tensors, {"maenas": text}))
    except UserError as error:
        kept = "the previous one is kept" if (folder / LAST_STATE).is_file() else "there is none yet"
        raise UserError(f"checkpoint not saved, {kept}: {error}") from None


def resumable(folder: Path) -> bool:
    """Whether a training was saved in the folder and can go on from there."""
    return (folder / LAST_STATE).is_file()


def read_state(folder: str | Path) -> State:
    """The state of a run's folder; UserError if there is none, or one that is damaged or of another version.

    A state that an earlier version left as a torch file is read too: no training is lost.
    """
    path = Path(folder) / LAST_STATE
    if not resumable(path.parent):
        raise UserError(f"nothing to resume in {folder}: {LAST_STATE} is missing")
    try:
        with path.open("rb") as file:
            before = file.read(2) == b"PK"
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    text, tensors = ("", {}) if before else read_tensors(path)
    try:
        state = read_torch(path) if before else _unpacked(json.loads(text), tensors)
    except (ValueError, KeyError, TypeError, IndexError, RuntimeError, RecursionError):
        raise UserError(f"{path} is damaged: its header does not describe its tensors") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path} is no training state of this version ({FORMAT})")
    return cast(State, state)


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Containers as JSON; every tensor goes into `tensors`, contiguous, and leaves its number and the order of its axes.

    The order keeps channels-last momentum what it is: other strides could round differently.
    """
    if isinstance(value, Tensor):
        name = str(len(tensors))
        order = sorted(range(value.ndim), key=value.stride, reverse=True)
        if value.is_contiguous():
            order = list(range(value.ndim))
        tensors[name] = value.detach().cpu().permute(order).clone(memory_format=torch.contiguous_format)
        return {"tensor": name, "axes": order}
    if isinstance(value, Mapping):
        return {"dict": [[key, _packed(entry, tensors)] for key, entry in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_packed(entry, tensors) for entry in value]}
    return [_packed(entry, tensors) for entry in value] if isinstance(value, list) else value


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The containers that `_packed` took apart."""
    if isinstance(value, list):
        return [_unpacked(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        axes = value["axes"]
        return tensors[value["tensor"]].permute([axes.index(axis) for axis in range(len(axes))])
    if "tuple" in value:
        return tuple(_unpacked(entry, tensors) for entry in value["tuple"])
    return {key: _unpacked(entry, tensors) for key, entry in value["dict"]}
