"""Official checkpoints into our models and the hand-drawn ones, entry by entry; nothing in them is executed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.errors import UserError
from nas.models.backbone import BackboneModule
from nas.models.base import DetectorModule
from nas.models.baselines import BASELINES, DETR_FAMILIES, canonical_name
from nas.models.build import build_model
from nas.models.checkpoint import load_weights
from nas.models.torch_file import read_torch
from search_spaces.published import is_published

#: What wrappers put before every name.
PREFIXES = ("module.", "_orig_mod.")
#: Entries that are constants of the architecture.
CONSTANTS = ("head.integral.project",)
#: Layers whose shape may follow the number of classes, and the entry from which that number is read, by kind of names.
CLASS_LAYERS = {
    "ours": r"head\.gfl_cls\.",
    "rows": r"model\.\d+\.(cv3|cv5|one2one_cv3)\.",
    "anchors": r"model\.\d+\.(m|im)\.",
    "rtdetr": r"class_embed\.|body\.enc_score_head\.|body\.denoising_class_embed\.",
}
CLASS_BIAS = {
    "ours": r"head\.gfl_cls\.0\.bias",
    "rows": r"model\.\d+\.(?:one2one_)?cv[35]\.0\.2\.bias",
    "anchors": r"model\.\d+\.m\.0\.bias",
    "rtdetr": r"body\.enc_score_head\.bias",
}

#: Names of the RT-DETRv2 repository -> names of the parts of `transformers`.
RTDETR_NAMES = (
    (r"backbone\.conv1\.conv1_(\d)\.", lambda m: f"body.backbone.model.embedder.embedder.{int(m[1]) - 1}."),
    (r"backbone\.res_layers\.(\d)\.blocks\.(\d+)\.", r"body.backbone.model.encoder.stages.\1.layers.\2."),
    (r"\.branch2([abc])\.", lambda m: f".layer.{'abc'.index(m[1])}."),
    (r"\.short\.conv\.(conv|norm)\.", r".shortcut.1.\1."),
    (r"\.short\.", ".shortcut."),
    (r"^(body\.backbone\..*)\.conv\.", r"\1.convolution."),
    (r"^(body\.backbone\..*)\.norm\.", r"\1.normalization."),
    (r"^(en|de)coder\.input_proj\.(\d)\.conv\.", r"body.\1coder_input_proj.\2.0."),
    (r"^(en|de)coder\.input_proj\.(\d)\.norm\.", r"body.\1coder_input_proj.\2.1."),
    (r"^encoder\.encoder\.(\d)\.", r"body.encoder.aifi.\1."),
    (r"^encoder\.", "body.encoder."),
    (r"^decoder\.dec_score_head\.", "class_embed."),
    (r"^decoder\.dec_bbox_head\.", "bbox_embed."),
    (r"^decoder\.decoder\.", "body.decoder."),
    (r"^decoder\.query_pos_head\.", "body.decoder.query_pos_head."),
    (r"^decoder\.enc_output\.proj\.", "body.enc_output.0."),
    (r"^decoder\.enc_output\.norm\.", "body.enc_output.1."),
    (r"^decoder\.", "body."),
    (r"\.cross_attn\.num_points_scale$", ".encoder_attn.n_points_scale"),
    (r"\.cross_attn\.", ".encoder_attn."),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.linear([12])\.", r".mlp.fc\1."),
    (r"(aifi\.\d\.layers\.\d)\.norm2\.", r"\1.final_layer_norm."),
    (r"(layers\.\d)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(layers\.\d)\.norm2\.", r"\1.encoder_attn_layer_norm."),
    (r"(layers\.\d)\.norm3\.", r"\1.final_layer_norm."),
)
#: Constants that the published files carry and our model computes.
RTDETR_CONSTANTS = ("decoder.anchors", "decoder.valid_mask")


def from_official(
    name: str, state_dict_or_path: Mapping[str, object] | str | Path, num_classes: int | None = None
) -> DetectorModule:
    """The model `name` with official weights, in eval mode.

    name: a published detector ("damo-yolo-s", also "tinynasL25_S") or a baseline ("yolov8n"). The weights are a state
    dict, a checkpoint with the key `model`, or the path of a `.pth`, which is read without running anything in it.
    Training and fused forms are both read; a YOLOv9 file with PGI gives up its auxiliary branch unless the name ends
    in `-pgi`. With `num_classes` other than the file's, the class layers whose shape changes stay untrained.
    Raises UserError that counts and names missing, unexpected and misshapen entries.
    """
    key = name if is_published(name) else canonical_name(name) or name
    if key.rpartition("-")[0] in DETR_FAMILIES:
        raise UserError(f"official weights of {key} are not read yet: give a checkpoint of this library (.safetensors)")
    source = f"the weights for {name}" if isinstance(state_dict_or_path, Mapping) else str(state_dict_or_path)
    state = clean_state(state_dict_or_path)
    kind = "rows" if key in BASELINES else "ours"
    if key.startswith("rtdetr"):
        kind, state = "rtdetr", rtdetr_state(state)
    elif key.startswith("yolov7"):
        kind, state = "anchors", with_neutral_implicit(state)
    plain = kind == "rows" and key.startswith("yolov9") and not key.endswith("-pgi")
    with_pgi = plain and any(".cv5.0." in entry for entry in state)
    found = class_count(state, kind)
    model: Any = build_model(f"{key}-pgi" if with_pgi else key, found if num_classes is None else num_classes)
    if isinstance(model, BackboneModule):
        raise UserError(f"{name} is a backbone; official weights are those of whole detectors, such as damo-yolo-s")
    fresh = class_entries(model.state_dict(), state, kind) if model.num_classes != found else ()
    kept = {entry: value for entry, value in state.items() if entry not in fresh}
    load_weights(model, kept, f"{source} (as {name})", (*CONSTANTS, *fresh) if kind == "ours" else fresh)
    if with_pgi:
        model.drop_auxiliary()
        model.name = key
    return model.eval()


def clean_state(state_dict_or_path: Mapping[str, object] | str | Path) -> dict[str, Tensor]:
    """The tensors of a state dict, checkpoint or `.pth` file under their bare names (no `model` key, no prefixes).

    Raises UserError for files that hold anything but tensors and plain data, and for checkpoints without weights.
    """
    data: Any = state_dict_or_path
    source = "the checkpoint"
    if isinstance(data, str | Path):
        source, data = str(data), read_torch(data)
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


def class_count(state: Mapping[str, Tensor], kind: str) -> int | None:
    """Number of classes that a state dict was trained on, or None if it lacks the class layer."""
    bias = next((value for entry, value in state.items() if re.fullmatch(CLASS_BIAS[kind], entry)), None)
    if bias is None or bias.ndim != 1:
        return None
    return len(bias) // 3 - 5 if kind == "anchors" else len(bias)


def class_entries(own: Mapping[str, Tensor], state: Mapping[str, Tensor], kind: str) -> tuple[str, ...]:
    """Entries of class layers whose shape differs between a model and a state dict."""
    return tuple(
        entry
        for entry, value in own.items()
        if re.match(CLASS_LAYERS[kind], entry) and entry in state and state[entry].shape != value.shape
    )


def with_neutral_implicit(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """YOLOv7's deployed files come without implicit vectors: the same network with added 0 and multiplied 1."""
    result = dict(state)
    for entry, value in state.items():
        match = re.fullmatch(r"(model\.\d+)\.m\.(\d)\.weight", entry)
        if match and value.ndim == 4:
            row, level = match.groups()
            result.setdefault(f"{row}.ia.{level}.implicit", torch.zeros(1, value.shape[1], 1, 1))
            result.setdefault(f"{row}.im.{level}.implicit", torch.ones(1, value.shape[0], 1, 1))
    return result


def rtdetr_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the RT-DETRv2 repository under our names; attention projections are cut into three."""
    result: dict[str, Tensor] = {}
    for entry, value in state.items():
        if entry in RTDETR_CONSTANTS:
            continue
        name = entry
        for pattern, replacement in RTDETR_NAMES:
            name = re.sub(pattern, replacement, name)  # type: ignore[arg-type]
        match = re.fullmatch(r"(.*)\.in_proj_(weight|bias)", name)
        if match:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                result[f"{match[1]}.{letter}_proj.{match[2]}"] = part
        else:
            result[name] = value
    return result
