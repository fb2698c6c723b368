"""Image files to RGB pixels, whatever their format; what cannot be read is named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from nas.errors import UserError

#: Endings that folders and globs are searched for.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jfif", ".ppm", ".mpo"})
#: What shows through transparent pixels: the grey that letterboxing pads with.
BACKGROUND = 114

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def read_image(path: str | Path) -> Pixels:
    """The picture of a file as (H, W, 3) uint8 RGB, turned upright by its EXIF orientation.

    Grey, palette, RGBA (over grey 114), CMYK and 16-bit (high byte) pictures are converted; of several frames the first
    is taken. Raises UserError naming the file if it is missing, empty, truncated, no image, or too large to be meant.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> Pixels:
    """The picture encoded in `data`, as `read_image`; `name` stands in the errors."""
    if not data:
        raise UserError(f"{name}: the file is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            # OpenCV decodes faster, but fills up truncated files in silence; a proper end mark excludes those.
            if image.format == "JPEG" and image.mode in ("RGB", "L") and data.endswith(b"\xff\xd9"):
                pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                if pixels is not None:
                    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
            return _converted(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        return _by_opencv(data, name)
    except Image.DecompressionBombError:
        raise UserError(f"{name}: the picture has more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise UserError(f"{name}: damaged or truncated image ({error})") from None


def pillow_to_rgb(image: Image.Image, name: str = "image") -> Pixels:
    """A Pillow image as `read_image` gives its file; UserError naming it if it cannot be converted."""
    try:
        return _converted(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{name}: damaged or unusual image ({error})") from None


def to_rgb(array: Any, name: str = "array") -> Pixels:
    """An array in memory as (H, W, 3) uint8 RGB: (H, W), (H, W, 1), RGB or RGBA; uint8, uint16, or floats 0..255.

    Raises UserError for other shapes and types, or for values that are not finite.
    """
    pixels = np.asarray(array)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise UserError(f"{name}: an image must be (H, W), (H, W, 3) or (H, W, 4), got {pixels.shape}")
    if pixels.dtype == np.uint16:
        pixels = pixels >> 8
    elif pixels.dtype.kind in "fi":
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise UserError(f"{name}: the image has values that are not finite")
        pixels = np.clip(np.rint(pixels), 0, 255)
    elif pixels.dtype.kind not in "ub":
        raise UserError(f"{name}: an image must be of numbers, got {pixels.dtype}")
    pixels = pixels.astype(np.uint8)
    if pixels.shape[2] == 4:
        return _over_grey(pixels)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _converted(image: Image.Image) -> Pixels:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        if image.mode == "F" or values.max(initial=0) > 65535:
            raise ValueError(f"pixels of mode {image.mode}, expected 8 or 16 bits")
        return to_rgb(values.astype(np.uint16) if values.max(initial=0) > 255 else values.astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        return _over_grey(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"), np.uint8)


def _over_grey(pixels: Pixels) -> Pixels:
    """RGBA over the background grey."""
    opacity = pixels[..., 3:].astype(np.float32) / 255
    return np.rint(pixels[..., :3] * opacity + BACKGROUND * (1 - opacity)).astype(np.uint8)


def _by_opencv(data: bytes, name: str) -> Pixels:
    """The second reader, for what the first does not know (16-bit colour TIFF)."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise UserError(f"{name}: not an image")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
