"""The full state of a training in one file, so that it goes on bit by bit where it was killed."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import Precision

from nas.data.loader import Loader
from nas.errors import UserError
from nas.files import write_atomic
from nas.models.base import DetectorModule
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

    def state(self, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
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

    def load(self, state: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> None:
        """Take over a state; UserError if it belongs to another training."""
        for key, value in fingerprint.items():
            if state["fingerprint"].get(key) != value:
                raise UserError(
                    f"cannot resume: {key} was {state['fingerprint'].get(key)!r} and is {value!r} now; "
                    "restore it or start a new run"
                )
        try:
            self.network.load_state_dict(state["network"])
            self.ema.model.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise UserError(f"cannot resume: the model is another one ({str(error).splitlines()[0]})") from None
        self.ema.updates = state["ema_updates"]
        self.loader.load_state_dict(state["loader"])
        self.precision.load_state_dict(state["precision"])
        for key, value in state["position"].items():
            setattr(self.position, key, value)


def write_state(folder: Path, state: Mapping[str, Any]) -> Path:
    """Write `last.state` atomically; if the disk is full the previous one stays, and a UserError says so."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    try:
        return write_atomic(folder / LAST_STATE, buffer.getvalue())
    except UserError as error:
        kept = "the previous one is kept" if (folder / LAST_STATE).is_file() else "there is none yet"
        raise UserError(f"checkpoint not saved, {kept}: {error}") from None


def resumable(folder: Path) -> bool:
    """Whether a training was saved in the folder and can go on from there."""
    return (folder / LAST_STATE).is_file()


def read_state(folder: str | Path) -> dict[str, Any]:
    """The state of a run's folder; nothing in it is executed (weights_only)."""
    path = Path(folder) / LAST_STATE
    if not resumable(path.parent):
        raise UserError(f"nothing to resume in {folder}: {LAST_STATE} is missing")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path} is no training state of this version ({FORMAT})")
    return state
