"""One self-contained file per detector: weights in safetensors, everything else in its JSON header."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import MaxLen, MinLen
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from nas.errors import UserError
from nas.files import write_atomic
from nas.models.base import DetectorModule, Origin
from nas.models.passport import Passport, checkpoint_passport
from nas.options import Pixels, Resize, check_value, read_object
from nas.spec import DetectorSpec, from_dict, to_dict

FORMAT = "maenas-checkpoint/1"
Classes = Annotated[list[str], MinLen(1), MaxLen(65_536)]
#: What every detector of this library expects of its images.
NORMALISATION = {"colour": "RGB", "range": [0, 255], "mean": [0, 0, 0], "std": [1, 1, 1]}


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    extra: Mapping[str, object] | None = None,
    training: Mapping[str, str] | None = None,
) -> Path:
    """Write a detector (ours or a baseline, trained or fused) so that `load_checkpoint` needs nothing else.

    `extra` is any JSON data (metrics, provenance); `training` what made the weights, for the passport (nas.models.passport).
    The file replaces an older one only when it is complete; raises UserError if the disk refuses it.
    """
    detector: Any = model
    spec = getattr(model, "spec", None)
    header: dict[str, object] = {
        "format": FORMAT,
        "architecture": {"spec": to_dict(spec)} if spec is not None else {"baseline": detector.name},
        "classes": list(detector.classes),
        "image_size": detector.image_size,
        "normalisation": NORMALISATION,
        "resize": getattr(model, "resize", "stretch"),
        "extra": dict(extra or {}),
    }
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}
    header["passport"] = asdict(checkpoint_passport(model, tensors, header, training))
    # One key: safetensors writes several in an order of chance, and equal checkpoints must be equal files.
    return write_atomic(path, save(tensors, {"maenas": json.dumps(header)}))


def read_header(path: str | Path) -> dict[str, object]:
    """What a checkpoint says of itself: architecture, classes, image_size, normalisation, resize, extra, passport.

    Raises UserError naming the file if it is missing, damaged, or not a checkpoint of this library.
    """
    return _open(path, weights=False)[0]


def load_checkpoint(path: str | Path) -> DetectorModule:
    """The detector of a checkpoint, in eval mode on the CPU.

    Raises UserError naming the file and what is wrong with it, down to the missing or unexpected entries.
    """
    header, state = _open(path, weights=True)
    model = _build(header, path)
    load_weights(model, state, str(path))
    model.resize = check_value(f"{path}: resize", header.get("resize", "stretch"), Resize)  # type: ignore[arg-type]
    model.passport = passport_of(header, path)
    return model.eval()


def passport_of(header: Mapping[str, object], path: str | Path) -> Passport | None:
    """The passport in a header, None in that of an older file; raises UserError naming the file for what is none."""
    found = header.get("passport")
    return None if found is None else read_object(Passport, found, f"{path}: its passport:")


def read_checkpoint(path: str | Path) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Header and tensors of a checkpoint as they lie in the file; raises UserError as `read_header` does."""
    return _open(path, weights=True)


def load_weights(
    model: DetectorModule, state: Mapping[str, Tensor], source: str, optional: tuple[str, ...] = ()
) -> None:
    """Copy entries into a model of the same architecture, merging or fusing it first if they are of such a form.

    `optional` are beginnings of names that may be absent and then keep their values. The model's `origin` then says how
    many entries were kept. Raises UserError that counts and names missing entries, unexpected ones, and ones of another
    shape.
    """
    problem = _difference(model.state_dict(), state, optional)
    if problem:
        for step in (step for step in ("merge", "fuse") if hasattr(model, step)):
            trial = getattr(copy.deepcopy(model), step)()
            if not _difference(trial.state_dict(), state, optional):
                getattr(model, step)()
                break
        else:
            raise UserError(f"{source} does not fit the architecture: {problem}")
    require_finite(state, source)
    model.load_state_dict(dict(state), strict=False)
    model.origin = Origin.of(model, state, source)


def require_finite(state: Mapping[str, Tensor], source: str) -> None:
    """UserError that counts and names the entries with NaN or infinity: such a detector would find nothing, in silence."""
    broken = [name for name, value in state.items() if not value.is_meta and not bool(torch.isfinite(value).all())]
    if broken:
        raise UserError(
            f"{source} has values that are not finite in {len(broken)} of {len(state)} entries ({', '.join(broken[:3])}"
            f"{', ...' if len(broken) > 3 else ''}): it is broken, take an earlier checkpoint"
        )


def _difference(own: Mapping[str, Tensor], state: Mapping[str, Tensor], optional: tuple[str, ...]) -> str:
    """Missing, unexpected and misshapen entries in one line; empty if there are none."""
    missing = [
        name
        for name in own
        if name not in state and not name.startswith(optional or "\0") and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    parts = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    return "; ".join(parts)


def read_tensors(path: str | Path, weights: bool = True) -> tuple[str, dict[str, Tensor]]:
    """The text that this library put into the header of a safetensors file, and its tensors; UserError for another file."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("maenas") or ""
            names = file.keys() if weights else []
            # Copies: what is read maps the file, which Windows lets nobody replace as long as a tensor lives.
            return text, {name: file.get_tensor(name).clone() for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or not a safetensors file ({error})") from None


def _open(path: str | Path, weights: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    text, state = read_tensors(path, weights)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or not isinstance(header.get("architecture"), dict):
        raise UserError(f"{path} is a safetensors file without maenas' header: convert it with nas.models.weights")
    if header.get("format") != FORMAT:
        raise UserError(f"{path}: format is {header.get('format')!r}, this version reads {FORMAT!r}")
    return header, state


def _build(header: Mapping[str, Any], path: str | Path) -> DetectorModule:
    from nas.models.baselines import build_baseline
    from nas.models.detector import build_detector

    try:
        classes = check_value("classes", header["classes"], Classes)
        size = check_value("image_size", header["image_size"], Pixels)
        architecture = header["architecture"]
        with torch.random.fork_rng([]):  # the weights will be overwritten: nobody's random numbers move
            if "baseline" in architecture:
                return build_baseline(str(architecture["baseline"]), len(classes), size, classes)
            spec = from_dict(architecture["spec"])
            if not isinstance(spec, DetectorSpec):
                raise UserError("describes a backbone, not a detector")
            return build_detector(replace(spec, image_size=size), classes=classes)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError, RecursionError, UserError) as error:
        message = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}: its header is not valid: {message}") from None
