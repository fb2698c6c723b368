"""From a drawn index to an augmented image: the training pipeline, deterministic per (seed, epoch, index)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, NamedTuple

import cv2
import numpy as np
from annotated_types import Ge, Le, Lt
from numpy.typing import NDArray

from nas.augment.affine import (
    clip_boxes,
    corner_hull,
    inverse,
    paste,
    random_affine,
    reachable,
    rectangle_hull,
    scaling,
    translation,
)
from nas.augment.copy_paste import Donors, paste_objects
from nas.augment.mosaic import Tile, mosaic_tiles, moved_boxes, whole_tile
from nas.augment.sada import apply_sada
from nas.data.dataset import DetectionData
from nas.data.images import ImageSource
from nas.data.resize import BACKGROUND, Fit
from nas.data.sampler import Draw, Order, companions
from nas.options import CountOrNone, Rule, Share, check_object


def jitter_colour(image: NDArray, rng: np.random.Generator, hue: float, saturation: float, value: float) -> NDArray:
    """RGB (H, W, 3) with hue turned and saturation and value scaled by factors uniform in 1 +- the given shares."""
    factors = 1 + rng.uniform(-1, 1, 3) * (hue, saturation, value)
    levels = np.arange(256)
    turned = (levels * factors[0]) % 180
    rows = [turned, np.clip(levels * factors[1], 0, 255), np.clip(levels * factors[2], 0, 255)]
    table = np.stack(rows, -1).astype(np.uint8)[None]
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    return cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2RGB)


#: From the smallest to the largest factor of a random scale.
Zoom = Annotated[
    tuple[float, float], Rule("from 0.01 to 100, lowest first", lambda pair: 0.01 <= pair[0] <= pair[1] <= 100)
]


#: What recipes and digests of earlier versions do not know.
LATER = ("closing_affine", "copy_paste")


class Sample(NamedTuple):
    """image (S, S, 3) uint8 RGB, boxes (K, 4) float32 corners in its pixels, labels (K,) int64."""

    image: NDArray
    boxes: NDArray
    labels: NDArray


@dataclass
class Augmentation:
    """The recipe; the defaults are DAMO-YOLO's for S, M and L.

    Probabilities in [0, 1]; rotation and shear in degrees, drawn from +-; translation a share of the size.
    """

    mosaic: Share = 1.0
    mosaic_pool: CountOrNone = (
        64  # partners come from about as many images near in the epoch's order; 0: from all, as official
    )
    rotation: Annotated[float, Ge(0), Le(180)] = 10.0
    scale: Zoom = (0.1, 2.0)
    shear: Annotated[float, Ge(0), Lt(90)] = 2.0
    translation: Share = 0.2
    mixup: Share = 0.15
    mixup_scale: Zoom = (0.5, 1.5)
    copy_paste: Share = (
        0.0  # of the images get objects of another one, rare and small ones first; not in closing epochs
    )
    flip: Share = 0.5
    flip_vertical: Share = 0.0
    sada: bool = True
    sada_in_closing: bool = True  # official: the ramp counts all epochs, so that SADA is strongest in the closing ones
    hue: Share = 0.0
    saturation: Share = 0.0
    value: Share = 0.0
    multi_scale: Share = 0.0  # batches at sizes within +- this share of the image size, multiples of 32
    closing_epochs: CountOrNone = 16
    closing_affine: bool = False  # the closing epochs lose mosaic and mixup alone, not the affine map

    @classmethod
    def plain(cls, flip: float = 0.0, flip_vertical: float = 0.0) -> Augmentation:
        """Resize and flip only."""
        still = cls(mosaic=0, mixup=0, sada=False, closing_epochs=0, rotation=0, scale=(1, 1), shear=0, translation=0)
        return replace(still, flip=flip, flip_vertical=flip_vertical)

    @property
    def moves(self) -> bool:
        """Whether an image without mosaic still goes through an affine map."""
        return bool(self.rotation or self.shear or self.translation or tuple(self.scale) != (1.0, 1.0))

    def sizes(self, image_size: int) -> tuple[int, ...]:
        """The image sizes that batches are drawn from: multiples of 32, the given size alone without multi_scale."""
        if not self.multi_scale:
            return (image_size,)
        low, high = image_size * (1 - self.multi_scale), image_size * (1 + self.multi_scale)
        return tuple(range(max(int(np.ceil(low / 32)) * 32, 32), int(high) + 1, 32))

    def decisive(self) -> dict[str, object]:
        """The values that decide what comes out, as plain data; what did not exist once counts only where it is used."""
        return {name: value for name, value in asdict(self).items() if value or name not in LATER}

    def checked(self) -> Augmentation:
        """Itself; UserError for a number outside its range."""
        check_object(self, "augmentation")
        return self


class Augmenter:
    """Makes the sample of a draw; the same draw gives the same sample in any process.

    order: of the epochs, in which the partners of mosaic and mixup stand (None: every image once).
    """

    def __init__(
        self, data: DetectionData, source: ImageSource, recipe: Augmentation, seed: int = 0, order: Order | None = None
    ) -> None:
        self.recipe, self.seed, self.order = recipe, seed, order or Order(len(data), seed)
        self._records = tuple(record.trainable() for record in data.records)
        self._source = source
        self._donors = Donors(self._records, data.num_classes) if recipe.copy_paste else None
        self._has_objects = np.array([len(record.labels) > 0 for record in self._records])

    def __call__(self, draw: Draw, fit: Fit | None = None) -> Sample:
        """image (S, S, 3) at the draw's size with its boxes; `fit`: where a picture that is resized alone lies instead."""
        recipe = self.recipe
        rng = np.random.default_rng([self.seed, draw.epoch, draw.record, draw.again])
        moved = (
            recipe.closing_affine and recipe.moves if draw.closing else recipe.mosaic or recipe.moves or recipe.mixup
        )
        if not moved:
            sample = self._whole(draw, fit)
        else:
            sample = self._composed(draw, rng)
        if self._donors is not None and not draw.closing and rng.random() < recipe.copy_paste:
            sample = self._pasted(sample, draw, rng, self._donors)
        image, boxes, labels = sample
        if recipe.hue or recipe.saturation or recipe.value:
            image = jitter_colour(image, rng, recipe.hue, recipe.saturation, recipe.value)
        if rng.random() < recipe.flip:
            image, boxes = cv2.flip(image, 1), boxes[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (draw.size, 0, draw.size, 0)
        if recipe.flip_vertical and rng.random() < recipe.flip_vertical:
            image, boxes = cv2.flip(image, 0), boxes[:, [0, 3, 2, 1]] * (1, -1, 1, -1) + (0, draw.size, 0, draw.size)
        boxes = boxes.astype(np.float32)
        if recipe.sada and (recipe.sada_in_closing or not draw.closing):
            strength = draw.progress if recipe.sada_in_closing else draw.opening
            image, boxes, labels = apply_sada(image, boxes, labels, rng, strength)
        return Sample(image, boxes, labels)

    def _whole(self, draw: Draw, fit: Fit | None) -> Sample:
        record = self._records[draw.record]
        fit = fit or Fit.of(record.width, record.height, draw.size, self._source.resize)
        return Sample(self._source.whole(draw.record, fit), fit.to_input(record.boxes), record.labels)

    def _composed(self, draw: Draw, rng: np.random.Generator) -> Sample:
        recipe, size, resize = self.recipe, draw.size, self._source.resize
        if not draw.closing and rng.random() < recipe.mosaic:
            pool = companions(self.order, draw, recipe.mosaic_pool)
            a, b, c = (int(i) for i in rng.choice(pool, 3))
            tiles, side = mosaic_tiles(rng, (draw.record, a, b, c), self._records, size, resize), 2 * size
        else:
            tiles, side = [whole_tile(draw.record, self._records[draw.record], size, resize)], size
        affine, factor = random_affine(rng, side, size, recipe.rotation, recipe.scale, recipe.shear, recipe.translation)
        image = np.full((size, size, 4), BACKGROUND, np.uint8)  # OpenCV warps four channels twice as fast as three
        parts = [self._draw_tile(image, tile, affine, factor) for tile in tiles]
        boxes = np.concatenate([part for part, _ in parts])
        labels = np.concatenate([part for _, part in parts])
        if not draw.closing and len(labels) and rng.random() < recipe.mixup:
            image, boxes, labels = self._mix(Sample(image, boxes, labels), draw, rng)
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGBA2RGB))
        keep = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) > 4 * (size / 640) ** 2
        return Sample(image, boxes[keep], labels[keep])

    def _draw_tile(self, image: NDArray, tile: Tile, affine: NDArray, factor: float) -> tuple[NDArray, NDArray]:
        """Paste a tile; its boxes (K, 4) that are kept, and their labels."""
        record, size = self._records[tile.index], image.shape[0]
        if reachable(affine, tile.visible, size) is None:
            return np.zeros((0, 4)), record.labels[:0]
        whole = affine @ tile.to_canvas
        pixels = self._source.read(tile.index, size)
        height, width = pixels.shape[:2]
        to_record = scaling(record.width / width, record.height / height)
        window = rectangle_hull(inverse(tile.to_canvas @ to_record), tile.visible)
        paste(image, pixels, whole @ to_record, window)
        boxes, keep = moved_boxes(record, tile, affine, factor, size)
        return boxes[keep], record.labels[keep]

    def _pasted(self, sample: Sample, draw: Draw, rng: np.random.Generator, donors: Donors) -> Sample:
        """With objects of one of the draw's companions."""
        index = donors.image(rng, companions(self.order, draw, self.recipe.mosaic_pool))
        if index is None:
            return sample
        record = self._records[index]
        scale = Fit.of(record.width, record.height, draw.size, self._source.resize).scale
        pixels, chosen = self._source.read(index, draw.size), donors.objects(rng, index)
        return Sample(*paste_objects(*sample, record, pixels, chosen, scale, rng))

    def _mix(self, sample: Sample, draw: Draw, rng: np.random.Generator) -> Sample:
        """Average with another image that has objects: letter-boxed, scaled, mirrored at times, cropped at random."""
        size = draw.size
        pool = companions(self.order, draw, self.recipe.mosaic_pool)
        pool = pool[self._has_objects[pool]]
        index = int(rng.choice(pool)) if len(pool) else draw.record
        record = self._records[index]
        zoom = float(rng.uniform(*self.recipe.mixup_scale))
        fit = zoom * min(size / record.height, size / record.width)
        side = zoom * size
        spare = max(side - size, 0.0)
        place = translation(-rng.uniform(0, spare), -rng.uniform(0, spare)) @ scaling(fit, fit)
        if rng.random() < 0.5:
            place = translation(*place[:2, 2]) @ translation(side, 0) @ scaling(-fit, fit)
        other = np.zeros_like(sample.image)
        grey = round(min(side, size))
        other[:grey, :grey] = BACKGROUND
        pixels = self._source.read(index, size)
        height, width = pixels.shape[:2]
        paste(other, pixels, place @ scaling(record.width / width, record.height / height), (0, 0, width, height))
        boxes = clip_boxes(corner_hull(place, record.boxes), (0.0, 0.0, float(size), float(size)))
        return Sample(
            cv2.addWeighted(sample.image, 0.5, other, 0.5, 0),
            np.concatenate([sample.boxes, boxes]),
            np.concatenate([sample.labels, record.labels]),
        )
