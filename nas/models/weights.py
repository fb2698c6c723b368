"""Official checkpoints into our models, entry by entry; nothing in them is executed."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.errors import UserError
from nas.models.build import build_model
from nas.models.checkpoint import load_weights

#: What wrappers put before every name.
PREFIXES = ("module.", "_orig_mod.")
#: Entries that are constants of the architecture.
CONSTANTS = ("head.integral.project",)
#: The layers that depend on the number of classes.
CLASS_LAYERS = ("head.gfl_cls.",)


def from_official(name: str, state_dict_or_path: Mapping[str, Any] | str | Path, num_classes: int | None = None) -> Any:
    """The model `name` with official weights, in eval mode.

    name: a published detector ("damo-yolo-s", also "tinynasL25_S") or a baseline ("yolov8n"). The weights are a state
    dict, a checkpoint with the key `model`, or the path of a `.pth`, which is read without running anything in it.
    `num_classes` other than the file's keeps a fresh class layer and takes everything else.
    Raises UserError that counts and names missing, unexpected and misshapen entries.
    """
    from nas.models.baselines import canonical_name
    from search_spaces.published import is_published

    if not is_published(name) and canonical_name(name) is not None:
        from nas.models.baselines.weights import from_official as convert_baseline

        return convert_baseline(name, state_dict_or_path, num_classes)
    source = f"the weights for {name}" if isinstance(state_dict_or_path, Mapping) else str(state_dict_or_path)
    state = clean_state(state_dict_or_path)
    found = state.get("head.gfl_cls.0.bias")
    model = build_model(name, num_classes if num_classes is not None or found is None else len(found))
    if not hasattr(model, "head"):
        raise UserError(f"{name} is a backbone; official weights are those of whole detectors, such as damo-yolo-s")
    optional: tuple[str, ...] = CONSTANTS
    if found is not None and len(found) != model.num_classes:
        state = {key: value for key, value in state.items() if not key.startswith(CLASS_LAYERS)}
        optional += CLASS_LAYERS
    load_weights(model, state, f"{source} (as {name})", optional)
    return model.eval()


def clean_state(state_dict_or_path: Mapping[str, Any] | str | Path) -> dict[str, Tensor]:
    """The tensors of a state dict, checkpoint or `.pth` file under their bare names (no `model` key, no prefixes).

    Raises UserError for files that hold anything but tensors and plain data, and for checkpoints without weights.
    """
    data: Any = state_dict_or_path
    source = "the checkpoint"
    if isinstance(data, str | Path):
        source, data = str(data), read_pickle(data)
    for key in ("model", "state_dict"):
        if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
            data = data[key]
            break
    if not isinstance(data, Mapping) or not data:
        raise UserError(f"{source} holds no state dict (a mapping of names to tensors, or one under the key `model`)")
    strange = [str(key) for key, value in data.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if strange:
        raise UserError(f"{source} holds entries that are no tensors: {', '.join(strange[:3])}")
    state = dict(data)
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), ""):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def read_pickle(path: str | Path) -> Any:
    """Tensors and plain data of a torch file; raises UserError, without running it, for a pickle with anything else."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(f"{path} is refused: it holds more than tensors and plain data, or is damaged") from None
    except Exception as error:  # the reader raises whatever a damaged byte leads it to
        raise UserError(f"{path} is damaged or not a torch file ({type(error).__name__})") from None
