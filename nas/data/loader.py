"""Batches of augmented images in an order that is a function of (seed, epoch): resumable at any batch, the same global
batches whatever the number of workers or processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nas.augment.pipeline import Augmentation, Augmenter
from nas.data.dataset import DetectionData
from nas.data.images import ImageSource
from nas.data.resize import MARGIN, Fit, fits_of
from nas.data.sampler import Draw, EpochSampler
from nas.errors import UserError
from nas.options import Resize, in_squares


class Batch(NamedTuple):
    """images (B, 3, H, W) uint8 RGB; boxes: B tensors (K, 4) float32 corners in their pixels; labels: B tensors (K,) int64;
    fits, where the originals lie in them if they were resized alone, and indices into the data: B each."""

    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    fits: list[Fit]
    indices: list[int]
    epoch: int
    position: int


class Loader:
    """Iterates over the batches that are left of the current epoch; then the epoch counter goes up by one.

    `state_dict()` taken while the caller works on a batch says that this batch is done: save after the optimiser step.
    With an endless sampler the workers begin the next epoch while the caller ends this one; what they prepared is thrown
    away if the sampler's plan has changed meanwhile.
    """

    def __init__(self, data: DetectionData, sampler: EpochSampler, batches: DataLoader) -> None:
        self.data, self.sampler, self._batches = data, sampler, batches
        self._stream: Iterator[dict[str, Any]] | None = None
        self._expected: dict[str, float | None] = {}

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        epoch, failure = self.sampler.epoch, ""
        try:
            for raw in self._stream_on():
                self.sampler.position = raw["position"] + 1
                self._expected = self.sampler.state_dict()
                yield self._batch(raw)
                if self.sampler.endless and raw["position"] + 1 == len(self.sampler):
                    break
        except UserError as error:  # a worker's error arrives with its traceback in the message
            failure = str(error).strip().splitlines()[-1].removeprefix("nas.errors.UserError: ")
        if failure:
            self.close()
            raise UserError(failure)
        self.sampler.epoch, self.sampler.position = epoch + 1, 0
        self._expected = self.sampler.state_dict()

    def _stream_on(self) -> Iterator[dict[str, Any]]:
        """The running stream of batches if the sampler stands where it does, else a new one from there."""
        over = self.sampler.is_over(self.sampler.epoch)
        if self._stream is None or over or not self.sampler.endless or self._expected != self.sampler.state_dict():
            self._stream = iter(self._batches)
        return self._stream

    def _batch(self, raw: dict[str, Any]) -> Batch:
        return Batch(
            raw["images"],
            list(torch.from_numpy(raw["boxes"]).split(raw["counts"])),
            list(torch.from_numpy(raw["labels"]).split(raw["counts"])),
            raw["fits"],
            raw["indices"],
            raw["epoch"],
            raw["position"],
        )

    def close(self) -> None:
        """End the workers now; left to the garbage collector they can take seconds. Iterating starts new ones."""
        self._stream = None
        iterator = getattr(self._batches, "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()
            self._batches._iterator = None

    def state_dict(self) -> dict[str, float | None]:
        """The sampler's state: a few integers."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """Resume at exactly the next batch."""
        self.sampler.load_state_dict(state)


def build_loader(
    data: DetectionData,
    batch_size: int,
    image_size: int,
    seed: int = 0,
    workers: int = 0,
    train: bool = True,
    augmentation: Augmentation | None = None,
    cache: str = "none",
    rank: int = 0,
    world_size: int = 1,
    total_epochs: int | None = None,
    pin_memory: bool = False,
    endless: bool = False,
    closing_epochs: float | None = None,
    resize: Resize = "stretch",
    factors: NDArray[np.float64] | None = None,
) -> Loader:
    """A loader of `data`: `batch_size` images a process, resized to image_size x image_size.

    train: shuffled, augmented by `augmentation` (None: resize and flip); otherwise in order, resized alone, with
    resize="rectangle" by aspect ratio, each batch in rectangles of its own.
    cache: "none", "ram" (images decoded once and kept resized), or "auto". endless: workers prepare the
    next epoch before this one ends, for plans that do not change between epochs. closing_epochs: instead of the recipe's.
    factors (N,): how often each image comes in an epoch of a training, at least once (nas.data.rare). UserError for empty data.
    """
    if not len(data):
        raise UserError(f"{data.name} {data.split}: no images; check its annotations and folder")
    if batch_size < 1 or workers < 0:
        raise UserError(f"batch size {batch_size} and workers {workers}: at least 1 and 0 are needed")
    recipe = (augmentation or Augmentation.plain(flip=0.5)).checked() if train else Augmentation.plain()
    resize = in_squares(resize) if train else resize
    aspects = [record.width / record.height for record in data.records] if resize == "rectangle" else None
    sampler = EpochSampler(
        len(data),
        batch_size,
        seed,
        train,
        recipe.sizes(image_size) if train else (image_size,),
        rank,
        world_size,
        total_epochs,
        recipe.closing_epochs if closing_epochs is None else closing_epochs,
        endless and workers > 0,
        factors,
        None if aspects is None else np.argsort(aspects, kind="stable"),
    )
    source = ImageSource(data.records, image_size, cache, 4 * recipe.mosaic_pool, resize)
    batches: DataLoader = DataLoader(
        _Images(data, Augmenter(data, source, recipe, seed, sampler.order), resize),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # the loader's own seed must not be drawn from the training's random state
    )
    return Loader(data, sampler, batches)


class _Images(Dataset):
    """The draws of a batch to samples; lives in the workers."""

    def __init__(self, data: DetectionData, augmenter: Augmenter, resize: Resize) -> None:
        self._data, self._augmenter, self._resize = data, augmenter, resize

    def __getitems__(self, draws: list[Draw]) -> list[tuple[Draw, Fit, Any]]:
        records = [self._data.records[draw.record] for draw in draws]
        fits = fits_of([(record.width, record.height) for record in records], draws[0].size, self._resize, MARGIN)
        return [(draw, fit, self._augmenter(draw, fit)) for draw, fit in zip(draws, fits, strict=True)]


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism


def _collate(placed: list[tuple[Draw, Fit, Any]]) -> dict[str, Any]:
    """Images in one tensor, boxes and labels in one array each: few objects cross the process border."""
    draws, fits, samples = zip(*placed, strict=True)
    images = torch.empty((len(samples), 3, *samples[0].image.shape[:2]), dtype=torch.uint8)
    if torch.utils.data.get_worker_info() is not None:
        images.share_memory_()
    target = images.numpy()
    for slot, sample in zip(target, samples, strict=True):
        cv2.split(sample.image, list(slot))  # writes into the planes
    return {
        "images": images,
        "boxes": np.concatenate([sample.boxes for sample in samples]),
        "labels": np.concatenate([sample.labels for sample in samples]),
        "counts": [len(sample.labels) for sample in samples],
        "indices": [draw.record for draw in draws],
        "fits": list(fits),
        "epoch": draws[0].epoch,
        "position": draws[0].batch,
    }
