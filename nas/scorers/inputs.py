"""Images for data-dependent scorers: Gaussian noise, or random crops of a folder of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nas.errors import UserError

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
