"""The passport of an exported file: what its bytes are, and that it is put in without changing them."""

from __future__ import annotations

import hashlib
import html
import re
import struct
from dataclasses import replace
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from nas.deploy.onnx_graph import set_metadata, write
from nas.deploy.parity import TOLERANCES, Agreement
from nas.deploy.runtime import KEY, Metadata, Runtime, read_metadata
from nas.deploy.tensorrt import MAGIC, read_engine
from nas.errors import UserError
from nas.files import write_atomic
from nas.models.base import DetectorModule
from nas.models.passport import (
    BOX_TOLERANCE,
    PICTURES,
    SCORE_TOLERANCE,
    Passport,
    Sight,
    best_rows,
    generated_pictures,
    header_digests,
    pictures_digest,
    training_of,
    weights_digest,
)
from nas.provenance import made_with

#: Where an OpenVINO file has what it says of itself.
_INFO = re.compile(rb"<" + KEY.encode() + rb' value="([^"]*)"\s*/>')


def give_passport(path: Path, runtime: Runtime, detector: DetectorModule, agreement: Agreement) -> Passport:
    """Put a passport into a file that was just written from `detector` and compared with torch; `runtime` runs it.

    What made the weights is told as long as they are those of the checkpoint that the detector was read from. Elsewhere rows
    may be as far off as three times what the file differs from torch here.
    """
    weights = weights_digest(detector.state_dict())
    pictures = generated_pictures(PICTURES, runtime.image_size)
    usual = TOLERANCES[runtime.metadata.precision]
    sight = Sight(
        runtime.image_size,
        pictures_digest(pictures),
        best_rows(runtime, pictures),
        max(SCORE_TOLERANCE, 3 * agreement.score_difference),
        max(BOX_TOLERANCE, 3 * agreement.box_difference),
        1.0 if usual.score is not None else usual.share,
    )
    training = {**training_of(detector.passport, weights), "exported weights": weights}
    digests = file_digests(path, runtime.metadata)
    passport = Passport(digests, made_with("torch", "onnx", *runtime.packages), training, sight).sealed()
    _put(path, replace(runtime.metadata, passport=passport))
    return passport


def metadata_of(path: Path) -> Metadata:
    """What an exported file says of itself, read without the runtime that it is for; raises UserError if it says nothing."""
    if path.suffix == ".engine":
        return read_engine(path)[0]
    if path.suffix == ".onnx":
        told = [item.value for item in _graph(path).metadata_props if item.key == KEY]
    else:
        told = [html.unescape(value.decode(errors="replace")) for value in _INFO.findall(_bytes(path))]
    return read_metadata(told[0] if len(told) == 1 else None, path)


def file_digests(path: Path, metadata: Metadata) -> dict[str, str]:
    """Digests of an exported file's parts as they are now."""
    return {"content": content_digest(path), **header_digests(metadata.to_dict())}


def content_digest(path: Path) -> str:
    """32 hex digits of an exported file, of its .bin too, without what it says of itself.

    Raises UserError for a file that cannot be read.
    """
    state = hashlib.blake2b(digest_size=16)
    if path.suffix == ".onnx":
        graph = _graph(path)
        del graph.metadata_props[:]
        state.update(graph.SerializeToString(deterministic=True))
    elif path.suffix == ".xml":
        state.update(_INFO.sub(b"", _bytes(path)))
        state.update(_bytes(path.with_suffix(".bin")))
    else:
        state.update(read_engine(path)[1])
    return state.hexdigest()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _graph(path: Path) -> ModelProto:
    try:
        graph = ModelProto()
        graph.ParseFromString(_bytes(path))
    except DecodeError:
        raise UserError(f"{path} is damaged: it holds no ONNX graph") from None
    return graph


def _put(path: Path, metadata: Metadata) -> None:
    if path.suffix == ".onnx":
        graph = _graph(path)
        set_metadata(graph, metadata)
        write(graph, path)
    elif path.suffix == ".xml":
        told = f'<{KEY} value="{html.escape(metadata.to_json())}" />'.encode()
        content, count = _INFO.subn(lambda match: told, _bytes(path))
        if count != 1:
            raise UserError(f"{path}: this OpenVINO writes what a file says of itself in another way")
        write_atomic(path, content)
    else:
        header = metadata.to_json().encode()
        write_atomic(path, MAGIC + struct.pack("<I", len(header)) + header + read_engine(path)[1])
