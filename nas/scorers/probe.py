"""How zero-cost scorers look at any network: its images, one set of logits, one loss, its layers, its blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UserError
from nas.models.layers import Unit

#: Classes of the stand-in task where a network has no classifier of its own.
CLASSES = 10
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.LeakyReLU)


def prepare(model: nn.Module, train: bool) -> nn.Module:
    """Set the BN mode and forbid in-place activations, which would spoil maps that scorers keep; returns the model."""
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]
    return model.train(train)


def maps(output: object) -> list[Tensor]:
    """The tensors of a network's answer: logits, or feature maps in a list, tuple or dict."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        return [item for value in output.values() for item in maps(value)]
    if isinstance(output, list | tuple):
        return [item for value in output for item in maps(value)]
    raise UserError(f"a scorer needs a network that returns tensors, got {type(output).__name__}")


def answer(model: nn.Module, images: Tensor) -> object:
    """What a network says; of a detector the neck's maps, since its decoded boxes saturate at initialisation."""
    return model.features(images)["neck"] if hasattr(model, "predict_raw") else model(images)  # type: ignore[operator]


def features(model: nn.Module, images: Tensor) -> Tensor:
    """(B, D): logits as they are, maps averaged over their area and joined, so that each level weighs alike."""
    return pooled(answer(model, images))


def pooled(output: object) -> Tensor:
    """(B, D) of an answer, see `features`."""
    return torch.cat([item.mean((2, 3)) if item.dim() == 4 else item.flatten(1) for item in maps(output)], 1)


def logits(model: nn.Module, images: Tensor, seed: int) -> Tensor:
    """(B, classes): the network's own logits, or its averaged maps through a fixed random linear layer."""
    output = answer(model, images)
    joined = pooled(output)
    if isinstance(output, Tensor) and output.dim() == 2:
        return joined
    generator = torch.Generator().manual_seed(seed)
    head = torch.randn(joined.shape[1], CLASSES, generator=generator) / joined.shape[1] ** 0.5
    return joined @ head.to(joined)


def task_loss(model: nn.Module, images: Tensor, seed: int, draw: int = 0) -> Tensor:
    """Cross-entropy against random labels: at initialisation the true labels carry no more information.

    draw: other labels for another batch, under the same `logits`.
    """
    guesses = logits(model, images, seed)
    generator = torch.Generator().manual_seed(seed + 1 + draw)
    labels = torch.randint(guesses.shape[1], (guesses.shape[0],), generator=generator)
    return F.cross_entropy(guesses, labels.to(guesses.device))


def weighted_layers(model: nn.Module) -> list[nn.Module]:
    """Convolutions and linear layers in definition order: the layers whose weights count."""
    layers: list[nn.Module] = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    if not layers:
        raise UserError(f"{type(model).__name__} has no convolution or linear layer to score")
    return layers


def activation_layers(model: nn.Module) -> list[nn.Module]:
    """Activation modules; raises UserError where a network calls them as functions only."""
    layers: list[nn.Module] = [layer for layer in model.modules() if isinstance(layer, _ACTIVATIONS)]
    if not layers:
        raise UserError(f"{type(model).__name__} has no activation module; use nn.ReLU instead of a function")
    return layers


def primary_blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a network in order: our units, else the children of the container that has most of them.

    Raises UserError for a network without two blocks in a sequence.
    """
    best: list[nn.Module] = [module for module in model.modules() if isinstance(module, Unit)]
    for container in model.modules() if not best else ():
        if isinstance(container, nn.Sequential | nn.ModuleList):
            blocks = [child for child in container if not isinstance(child, nn.Conv2d | nn.Linear)]
            blocks = [child for child in blocks if any(isinstance(layer, nn.Conv2d) for layer in child.modules())]
            if len(blocks) > len(best):
                best = blocks
    if len(best) < 2:
        raise UserError(f"{type(model).__name__} has no sequence of blocks; put them into an nn.Sequential")
    return best


_SUFFIXES = (".jpg", ".jpeg", ".png")
#: Mean and deviation of ImageNet's red, green and blue.
_MEAN = np.array((123.7, 116.3, 103.5), np.float32)
_STD = np.array((58.4, 57.1, 57.4), np.float32)


def scorer_images(inputs: str, batch: int, side: int, seed: int) -> Tensor:
    """(batch, 3, side, side) with zero mean and unit deviation: `inputs` is "gaussian" or a folder of pictures."""
    if inputs == "gaussian":
        return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return random_crops(Path(inputs), batch, side, seed)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures below a folder, in order; UserError if there are none."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES) if folder.is_dir() else []
    if not files:
        raise UserError(f"inputs must be `gaussian` or a folder with .jpg or .png pictures, got {folder}")
    return files


def random_crops(folder: Path, batch: int, side: int, seed: int) -> Tensor:
    """Square crops of at least half the shorter side, resized; the same pictures and corners for the same seed."""
    import cv2

    files = pictures_in(folder)
    rng = np.random.default_rng(seed)
    crops = np.empty((batch, side, side, 3), np.float32)
    for index in range(batch):
        path = files[int(rng.integers(len(files)))]
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is None:
            raise UserError(f"{path} is not a readable picture")
        height, width = picture.shape[:2]
        size = int(rng.integers(min(height, width) // 2, min(height, width) + 1))
        top, left = int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))
        crop = cv2.resize(picture[top : top + size, left : left + size], (side, side), interpolation=cv2.INTER_AREA)
        crops[index] = (crop[..., ::-1].astype(np.float32) - _MEAN) / _STD
    return torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous()
