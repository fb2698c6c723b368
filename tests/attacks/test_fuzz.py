"""Files of every kind with bytes and values changed: read, or refused in one line, but never another exception.

What was found lies in `corpus/`, one file each, and is read again every time. The long hunt is
`FUZZ_MINUTES=60 python -m pytest -m benchmark tests/attacks/test_fuzz.py`; it leaves what it finds in the corpus.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nas.commands.benchmark_files import Row, read_row
from nas.commands.search import FREE as SEARCH_FREE
from nas.commands.search import SearchCommand
from nas.commands.select_files import read_finalists, write_finalists
from nas.commands.train import FREE as TRAIN_FREE
from nas.commands.train import TrainCommand
from nas.config import compose_config
from nas.cost.latency import LatencyTable
from nas.cost.table_file import find_table
from nas.data.coco import read_coco
from nas.data.images import read_image
from nas.data.voc import read_voc
from nas.data.yolo_text import read_yolo, yolo_classes
from nas.deploy.runtime import Metadata, read_metadata
from nas.deploy.tensorrt import MAGIC, read_engine
from nas.errors import UserError
from nas.files import load_spec, read_json, save_spec
from nas.measure.artefact import Interval, Parity, Stages
from nas.models.build import build_model
from nas.models.checkpoint import load_checkpoint, save_checkpoint
from nas.models.torch_file import read_torch
from nas.options import read_object
from nas.resume import continued, store_settings
from nas.searchers.history import load_arrays, save_arrays
from nas.searchers.optuna import open_storage
from nas.selection.halving import Halving
from nas.selection.portfolio import Finalist
from nas.selection.rungs import Plan, make_plan
from nas.spec import Backbone, DetectorSpec, HeadSpec, NeckSpec, Residual, Stem, digest
from nas.training.hooks import read_epochs
from nas.training.state import read_state, write_state

CORPUS = Path(__file__).resolve().parent / "corpus"
#: What may stand anywhere in a structure, and in bytes.
ODD: tuple[Any, ...] = (
    *(None, True, False, "", "x", "0", "1e5", "nan", "\0", "../..", [], {}, [None], [[1, 2]], {"type": "plain"}),
    *(-1, 0, 1, 1.5, 7, 2**31, 2**63, 10**30, 1e300, -1e300, float("nan"), float("inf"), ["x"] * 50, [10**30] * 4),
)
TOKENS = (b"\0", b"\xff", b"\xff" * 8, b"{", b"[", b"]" * 3, b"(" * 40, b"&a ", b"*a", b"!!", b"9" * 40, b"-1", b"nan", b"\n",
          b"\x80\x02", b"R", b"b", b"Q.", b"PK\x01\x02", b"IDAT", b"\xff\xc0")  # fmt: skip


def tiny_detector() -> DetectorSpec:
    blocks = tuple(Residual("k1kx", out=8 * scale, bottleneck=8, depth=1, stride=2) for scale in (1, 2, 2, 3))
    backbone = Backbone(Stem("focus", 8), blocks, (1, 2, 3), reparam=True)
    return DetectorSpec(backbone, NeckSpec((8, 8, 8), depth=1), HeadSpec(2, reg_max=7), 64)


def picture(kind: str) -> bytes:
    stream = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    Image.fromarray(values).save(stream, kind)
    return stream.getvalue()


def valid_spec(folder: Path) -> bytes:
    return save_spec(folder / "valid.yaml", tiny_detector(), name="tiny", metrics={"score": 1.0}).read_bytes()


def valid_checkpoint(folder: Path) -> bytes:
    save_spec(folder / "tiny.yaml", tiny_detector(), name="tiny")
    return save_checkpoint(folder / "tiny.safetensors", build_model(str(folder / "tiny.yaml"), None)).read_bytes()


def valid_state(folder: Path) -> bytes:
    moved = torch.zeros(1, 2, 3, 4).to(memory_format=torch.channels_last)
    state = {"format": "maenas-training/1", "optimizer": {"state": {0: {"m": moved}}}, "pair": (1, [2.5, None])}
    return write_state(folder, state).read_bytes()


def valid_torch(folder: Path, zipped: bool = True) -> bytes:
    state = {"model": torch.nn.Linear(2, 3).state_dict(), "epoch": 3, "rates": [0.1, None, True]}
    torch.save(state, folder / "valid.pth", _use_new_zipfile_serialization=zipped)
    return (folder / "valid.pth").read_bytes()


def valid_arrays(folder: Path) -> bytes:
    save_arrays(folder / "valid.npz", "a search", {"values": np.arange(6.0), "born": np.arange(3)})
    return (folder / "valid.npz").read_bytes()


def valid_engine(folder: Path) -> bytes:
    text = Metadata(("a", "b"), 64).to_json().encode()
    return MAGIC + struct.pack("<I", len(text)) + text + b"plan"


def valid_table(folder: Path) -> bytes:
    document = json.loads(find_table("cpu_onnxruntime_fp32_1thread").read_text())
    return json.dumps(document | {"rows": document["rows"][:6]}).encode()


def valid_finalists(folder: Path) -> bytes:
    spec = tiny_detector()
    finalist = Finalist("a", "drawn", "tinynas", 1.0, spec, digest(spec), {"latency_ms": 1.0})
    return write_finalists(folder / "valid.json", [finalist]).read_bytes()


def valid_search(folder: Path) -> bytes:
    config = compose_config("search", SearchCommand, {"+budget.mine.params_m": 3})
    return store_settings(config, folder, SEARCH_FREE).read_bytes()


def valid_training(folder: Path) -> bytes:
    config = compose_config("train", TrainCommand, {"model": "damo-yolo-t", "data": "shapes"})
    return store_settings(config, folder, TRAIN_FREE).read_bytes()


@cache
def known_search() -> SearchCommand:
    return compose_config("search", SearchCommand, {"+budget.mine.params_m": 3})


@cache
def known_training() -> TrainCommand:
    return compose_config("train", TrainCommand, {"model": "damo-yolo-t", "data": "shapes"})


def goes_on(path: Path, search: bool) -> None:
    path.rename(path.with_name("config.yaml"))
    if search:
        continued(replace(known_search(), resume=str(path.parent)), (), SEARCH_FREE).settings  # noqa: B018
    else:
        continued(replace(known_training(), resume=str(path.parent)), (), TRAIN_FREE)


def valid_study(folder: Path) -> bytes:
    halving = Halving(
        make_plan(2, 2), open_storage(f"sqlite:///{folder / 'valid.db'}"), "x", 0, 1.0, lambda *rest: (0, 0)
    )
    halving._study(0).set_user_attr("a", 1)
    halving.storage.engine.dispose()  # type: ignore[attr-defined]
    return (folder / "valid.db").read_bytes()


def take_study(path: Path) -> None:
    storage = open_storage(f"sqlite:///{path}")
    try:
        halving = Halving(make_plan(2, 2), storage, "x", 0, 1.0, lambda *rest: (0, 0))
        halving._study(0)
        halving.release()
    finally:
        storage.engine.dispose()  # type: ignore[attr-defined]


def valid_coco(folder: Path) -> bytes:
    box = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [1, 1, 8, 8],
        "area": 64,
        "segmentation": [[1, 1, 9, 1, 5, 9]],
    }
    image = {"id": 1, "file_name": "a.png", "width": 30, "height": 20}
    return json.dumps({"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "ant"}]}).encode()


def take_yolo(path: Path) -> None:
    (path.parent / "a.png").write_bytes(picture("PNG"))
    path.rename(path.with_name("a.txt"))
    read_yolo([path.parent], ["ant", "bee"])


def take_voc(path: Path) -> None:
    (path.parent / "a.png").write_bytes(picture("PNG"))
    path = path.rename(path.with_name("a.xml"))
    read_voc(path.parent, [path], ["ant"])


def moved(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name))


VOC = b"""<annotation><filename>a.png</filename><object><name>ant</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"""
_MS = Interval(2.0, 1.9, 2.1)
ROW = Row("onnx", "int8", "", "files/onnx-int8.onnx", 1.5, 0.4, 0.6, 72, Stages(_MS, _MS, _MS, _MS), 40.0,
          Parity(8, 90, 0.99, 0.01, 0.5), host={"processor": "x", "cores": 2})  # fmt: skip
#: Kind -> ending, a valid file's bytes, and what reads it; a reader may answer or raise UserError.
TARGETS: dict[str, tuple[str, Callable[[Path], bytes], Callable[[Path], object]]] = {
    "spec": (".yaml", valid_spec, load_spec),
    "checkpoint": (".safetensors", valid_checkpoint, load_checkpoint),
    "state": (".state", valid_state, lambda path: read_state(moved(path, "last.state").parent)),
    "torch": (".pth", valid_torch, read_torch),
    "torch_old": (".pt", lambda folder: valid_torch(folder, False), read_torch),
    "search_state": (".npz", valid_arrays, lambda path: load_arrays(path, "a search")),
    "engine": (".engine", valid_engine, read_engine),
    "export": (".json", lambda folder: Metadata(("a",), 64).to_json().encode(),
               lambda path: read_metadata(path.read_text(errors="replace"), path)),
    "table": (".json", valid_table, LatencyTable.load),
    "finalists": (".json", valid_finalists, read_finalists),
    "benchmark": (".json", lambda folder: json.dumps(asdict(ROW)).encode(), read_row),
    "plan": (".json", lambda folder: json.dumps(asdict(make_plan(4, 3))).encode(),
             lambda path: read_object(Plan, read_json(path), f"{path}:")),
    "search": (".yaml", valid_search, lambda path: goes_on(path, True)),
    "training": (".yaml", valid_training, lambda path: goes_on(path, False)),
    "study": (".db", valid_study, take_study),
    "epochs": (".jsonl", lambda folder: b'{"step": 2, "epoch": 1, "ap": 0.5}\n' * 2,
               lambda path: read_epochs(moved(path, "epochs.jsonl").parent)),
    "coco": (".json", valid_coco, lambda path: read_coco(path, path.parent)),
    "yolo": (".txt", lambda folder: b"0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.2 0.1 0.3 0.3\n", take_yolo),
    "voc": (".xml", lambda folder: VOC, take_voc),
    "names": (".yaml", lambda folder: b"path: .\ntrain: images\nnames: {0: ant, 1: bee}\nnc: 2\n",
              lambda path: yolo_classes(moved(path, "data.yaml").parent)),
    **{f"image_{kind.lower()}": (f".{kind.lower()}", lambda folder, kind=kind: picture(kind), read_image)
       for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")},
}  # fmt: skip


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A valid file of every kind, which is read."""
    found = {}
    for kind, (_, make, _) in TARGETS.items():
        found[kind] = make(tmp_path_factory.mktemp("valid"))
        assert tried(kind, found[kind], tmp_path_factory.mktemp("read")) == "", kind
    return found


def tried(kind: str, data: bytes, folder: Path) -> str:
    """Read bytes as a file of a kind: nothing if they are understood, else the line; other exceptions fly on."""
    path = folder / f"x{TARGETS[kind][0]}"
    path.write_bytes(data)
    try:
        TARGETS[kind][2](path)
    except UserError as error:
        assert "\n" not in str(error) and str(error), kind
        return str(error)
    return ""


def places(node: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every node below."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*way, key)
        yield from places(value, (*way, key))


def structured(data: bytes) -> tuple[Any, Callable[[Any], bytes]] | None:
    """The structure of JSON, YAML or a safetensors header, and how it becomes bytes again."""
    if data[:1] in (b"{", b"["):
        try:
            return json.loads(data), lambda changed: json.dumps(changed).encode()
        except ValueError:
            return None
    if len(data) > 8 and data[8:9] == b"{":
        (length,) = struct.unpack_from("<Q", data)
        header, rest = json.loads(data[8 : 8 + length]), data[8 + length :]
        header["__metadata__"]["maenas"] = json.loads(header["__metadata__"]["maenas"])

        def packed(changed: Any) -> bytes:
            inner = changed.get("__metadata__") if isinstance(changed, dict) else None
            if isinstance(inner, dict) and "maenas" in inner:
                inner["maenas"] = json.dumps(inner["maenas"])
            text = json.dumps(changed).encode()
            return struct.pack("<Q", len(text)) + text + rest

        return header, packed
    if data[:7] in (b"format:", b"budget:", b"model: ", b"evaluat", b"path: .") or data.startswith(b"hardware"):
        return yaml.safe_load(data), lambda changed: yaml.safe_dump(changed).encode()
    return None


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four changes, of values where they have a structure, else of bytes."""
    shape = structured(data) if rng.random() < 0.6 else None
    if shape is not None:
        document, packed = copy.deepcopy(shape[0]), shape[1]
        for _ in range(rng.randint(1, 3)):
            way = rng.choice(list(places(document)) or [()])
            inner = document
            for key in way[:-1]:
                inner = inner[key]
            if not way:
                document = copy.deepcopy(rng.choice(ODD))
            elif rng.random() < 0.7:
                inner[way[-1]] = copy.deepcopy(rng.choice(ODD))
            else:
                del inner[way[-1]]
        return packed(document)
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randrange(len(out) + 1), rng.randrange(5)
        if kind == 0 and at < len(out):
            out[at] = rng.randrange(256)
        elif kind == 1:
            out[at : at + rng.choice((0, 1, 4, 16))] = rng.choice(TOKENS)
        elif kind == 2:
            del out[at : at + rng.choice((1, 2, 8, 200))]
        elif kind == 3 and at + 4 <= len(out):
            out[at : at + 4] = struct.pack("<I", rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 65536)))
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


few = settings(
    max_examples=25, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.mark.parametrize("kind", TARGETS)
def test_changed_files_are_read_or_refused(
    valid: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    folder = tmp_path_factory.mktemp(kind)

    @few
    @given(st.integers(0, 2**32 - 1))
    def once(seed: int) -> None:
        tried(kind, mutated(valid[kind], random.Random(seed)), fresh(folder))

    once()


def fresh(folder: Path) -> Path:
    """The folder without what the last file left."""
    for path in folder.iterdir():
        path.unlink()
    return folder


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*")), ids=lambda path: path.name)
def test_what_was_found_stays_mended(path: Path, tmp_path: Path) -> None:
    tried(path.name.split("-")[0], path.read_bytes(), tmp_path)


@pytest.mark.benchmark
def test_a_long_hunt(valid: dict[str, bytes], tmp_path: Path) -> None:
    """Kind after kind with new seeds; findings are kept in the corpus."""
    end, rng, counts, found = time.monotonic() + 60 * float(os.environ.get("FUZZ_MINUTES", 60)), random.Random(), {}, []
    only = os.environ.get("FUZZ_ONLY", "").split(",") if os.environ.get("FUZZ_ONLY") else list(TARGETS)
    while time.monotonic() < end:
        for kind in only:
            data = mutated(valid[kind], rng)
            counts[kind] = counts.get(kind, 0) + 1
            try:
                tried(kind, data, fresh(tmp_path))
            except Exception as error:
                CORPUS.mkdir(exist_ok=True)
                name = f"{kind}-{type(error).__name__}-{hashlib.sha256(data).hexdigest()[:8]}"
                found.append(f"{name}: {str(error)[:200]!r}")
                (CORPUS / name).write_bytes(data)
    print(counts)
    assert not found, "\n".join(found)
