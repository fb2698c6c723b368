"""Hostile files, each made of few bytes: `ATTACKS` names them, with their ending and what they hold.

`python tests/attacks/hostile.py FOLDER` writes them.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARK, STOP = b"(", b"."
PROTO = b"\x80\x02"
MAGIC = PROTO + b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
VERSION = PROTO + b"M\xe9\x03."
SYSTEM = PROTO + b"}(X\x0d\x00\x00\x00little_endian\x88u."


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = value.to_bytes(8, "little", signed=True)
    return b"\x8a\x08" + data


def storage(key: str = "0", kind: str = "torch\nFloatStorage", count: int = 4) -> bytes:
    return MARK + text("storage") + b"c" + kind.encode() + b"\n" + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(
    held: bytes | None = None, offset: int = 0, size: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,)
) -> bytes:
    """A call that makes a tensor of a storage."""
    numbers = [b"(" + b"".join(map(number, values)) + b"t" for values in (size, stride)]
    arguments = (held or storage()) + number(offset) + numbers[0] + numbers[1] + b"\x89" + b"N"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + MARK + arguments + b"tR"


def state(value: bytes, name: bytes = text("weight")) -> bytes:
    """The description of a state dict of one entry."""
    return PROTO + b"}" + name + value + b"s" + STOP


def archive(description: bytes, storages: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    """A torch file around a description."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr("archive/data.pkl", description)
        file.writestr("archive/byteorder", "little")
        for key, content in ({"0": bytes(16)} if storages is None else storages).items():
            file.writestr(f"archive/data/{key}", content)
    return buffer.getvalue()


def overlapping() -> bytes:
    """Every entry of the directory at the end points to the same bytes."""
    data = archive(state(tensor()), {str(i): bytes(4096) if not i else b"" for i in range(50)})
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        place = {entry.filename: entry.header_offset for entry in file.infolist()}
    out, at = bytearray(data), data.index(b"PK\x01\x02")
    while out[at : at + 4] == b"PK\x01\x02":
        length = struct.unpack_from("<H", out, at + 28)[0]
        if out[at + 46 : at + 46 + length].startswith(b"archive/data/"):
            struct.pack_into("<II", out, at + 20, 4096, 4096)
            struct.pack_into("<I", out, at + 42, place["archive/data/0"])
        at += 46 + length
    return bytes(out)


def twice() -> bytes:
    """Two descriptions under one name: readers could differ in which they take."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", state(tensor()))
        file.writestr("archive/data.pkl", state(b"cos\nsystem\n" + text("id") + b"\x85R"))
        file.writestr("archive/data/0", bytes(16))
    return buffer.getvalue()


def old(description: bytes, keys: tuple[str, ...] = ("0",), storages: bytes = b"") -> bytes:
    """A file as torch wrote it before 1.6."""
    return MAGIC + VERSION + SYSTEM + description + PROTO + b"](" + b"".join(map(text, keys)) + b"e" + STOP + storages


def old_storage(count: int, held: int) -> bytes:
    return struct.pack("<q", count) + bytes(held)


def nested_key(depth: int = 40) -> bytes:
    """A tuple of two of a tuple of two of ...: hashing it as a key takes 2 ** depth steps."""
    parts = b"K\x01q\x00"
    for _ in range(depth):
        parts += b"h\x00\x86q\x00"
    return parts


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + MARK + b"".join(arguments) + b"tR"


def safetensors(header: Any, data: bytes = b"") -> bytes:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + data


def checkpoint(**changes: Any) -> bytes:
    """A checkpoint's header without tensors."""
    known = {
        "format": "maenas-checkpoint/1",
        "architecture": {"baseline": "yolov8n"},
        "classes": ["a"],
        "image_size": 64,
    }
    return safetensors({"__metadata__": {"maenas": json.dumps(known | changes)}})


def own_code(kind: str) -> dict[str, Any]:
    block = {"type": kind, "out": 8, "depth": 1, "stride": 2}
    return {"type": "backbone", "stem": {"kind": "conv", "out": 8, "kernel": 3, "stride": 2}, "blocks": [block] * 4}


def png(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def objects() -> bytes:
    """An archive of numpy with an array of objects, which are pickled."""
    head = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + "\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + pickle.dumps([print])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("format.npy", array)
    return buffer.getvalue()


def numpy_bomb() -> bytes:
    """A search state whose array says to have 2 ** 40 numbers, packed a thousand times."""
    head = "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(117) + "\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(
            "format.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + bytes(1 << 20)
        )
    return buffer.getvalue()


def zip_of(entries: dict[str, bytes], link: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o120777 if link else 0o100644) << 16
            file.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def laughs() -> bytes:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))]
    return "\n".join(lines).encode()


def merged_laughs() -> bytes:
    lines = ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 40))]
    return "\n".join(lines).encode()


SYSTEM_CALL = call("os", "system", text("touch RAN"))
TORCH: dict[str, Callable[[], bytes]] = {
    "os_system": lambda: archive(state(SYSTEM_CALL)),
    "posix_system": lambda: archive(state(call("posix", "system", text("touch RAN")))),
    "builtins_eval": lambda: archive(state(call("builtins", "eval", text("open('RAN','w')")))),
    "old_builtin_getattr": lambda: archive(state(call("__builtin__", "getattr", text("x"), text("y")))),
    "bare_pickle": lambda: PROTO + SYSTEM_CALL + STOP,
    "protocol_4": lambda: archive(b"\x80\x04" + SYSTEM_CALL + STOP),
    "stack_global": lambda: archive(
        PROTO + text("os") + text("system") + b"\x93" + text("touch RAN") + b"\x85R" + STOP
    ),
    "inst": lambda: archive(PROTO + MARK + text("touch RAN") + b"ios\nsystem\n" + STOP),
    "obj": lambda: archive(PROTO + MARK + b"cos\nsystem\n" + text("touch RAN") + b"o" + STOP),
    "newobj": lambda: archive(state(b"ccollections\nOrderedDict\n)\x81")),
    "extension": lambda: archive(state(b"\x82\x01")),
    "named_in_text": lambda: archive(state(b"Pos.system\n")),
    "attributes_of_a_name": lambda: archive(state(b"ctorch._utils\n_rebuild_tensor_v2\n}" + text("a") + b"K\x01sb")),
    "call_of_what_was_called": lambda: archive(state(b"ccollections\nOrderedDict\n)R)R")),
    "load_from_bytes": lambda: archive(state(call("torch.storage", "_load_from_bytes", text("x")))),
    "rebuild_from_type": lambda: archive(state(call("torch._tensor", "_rebuild_from_type_v2", text("x")))),
    "numpy_reconstruct": lambda: archive(state(call("numpy.core.multiarray", "_reconstruct", text("x")))),
    "dotted_name": lambda: archive(state(call("torch", "serialization.os.system", text("touch RAN")))),
    "beyond_its_storage": lambda: archive(state(tensor(size=(1000,)))),
    "offset_beyond": lambda: archive(state(tensor(offset=10**9))),
    "negative_offset": lambda: archive(state(tensor(offset=-4))),
    "negative_stride": lambda: archive(state(tensor(stride=(-1,)))),
    "huge_stride": lambda: archive(state(tensor(size=(2,), stride=(2**62,)))),
    "grown_by_stride_0": lambda: archive(state(tensor(size=(2**40,), stride=(0,)))),
    "product_overflows": lambda: archive(state(tensor(size=(2**32, 2**32), stride=(0, 0)))),
    "size_is_text": lambda: archive(state(tensor().replace(b"(" + number(4) + b"t", text("a") * 1 + b"\x85", 1))),
    "storage_shorter_than_said": lambda: archive(state(tensor(storage(count=2**40)))),
    "storage_of_negative_size": lambda: archive(state(tensor(storage(count=-1)))),
    "storage_that_is_not_there": lambda: archive(state(tensor(storage(key="7")))),
    "storage_outside": lambda: archive(state(tensor(storage(key="../../../etc/passwd")))),
    "storage_of_two_kinds": lambda: archive(
        PROTO + b"}" + text("a") + tensor() + b"s" + text("b") + tensor(storage(kind="torch\nDoubleStorage")) + b"s."
    ),
    "untyped_storage": lambda: archive(state(tensor(storage(kind="torch\nUntypedStorage")))),
    "nested_key": lambda: archive(PROTO + b"}" + nested_key() + b"K\x01s" + STOP),
    "tensor_as_key": lambda: archive(PROTO + b"}" + tensor() + b"K\x01s" + STOP),
    "set_item_of_a_list": lambda: archive(PROTO + b"]" + text("a") + b"K\x01s" + STOP),
    "append_to_a_dict": lambda: archive(PROTO + b"}K\x01a" + STOP),
    "empty_stack": lambda: archive(PROTO + b"R" + STOP),
    "no_mark": lambda: archive(PROTO + b"t" + STOP),
    "mark_as_value": lambda: archive(PROTO + b"((\x85" + STOP),
    "unknown_memo": lambda: archive(PROTO + b"h\x07" + STOP),
    "no_stop": lambda: archive(PROTO + b"}"),
    "text_longer_than_file": lambda: archive(PROTO + b"X\xff\xff\xff\x7fabc"),
    "itself": lambda: archive(PROTO + b"}q\x00" + text("model") + b"h\x00s" + STOP),
    "packed": lambda: archive(state(tensor()), {"0": bytes(1 << 20)}, zipfile.ZIP_DEFLATED),
    "overlapping_entries": overlapping,
    "two_of_one_name": twice,
    "big_endian": lambda: archive(state(tensor())).replace(b"little", b"big---"),
    "no_description": lambda: zip_of({"archive/other": b""}),
    "half_a_zip": lambda: archive(state(tensor()))[:200],
    "old_with_a_call": lambda: old(state(SYSTEM_CALL)),
    "old_call_in_its_head": lambda: MAGIC + PROTO + SYSTEM_CALL + STOP,
    "old_storage_too_short": lambda: old(state(tensor(storage()[:-2] + b"NtQ")), storages=old_storage(4, 3)),
    "old_storage_of_2_to_62": lambda: old(
        state(tensor(storage(count=2**62)[:-2] + b"NtQ")), storages=old_storage(2**62, 16)
    ),
    "old_storage_unlisted": lambda: old(state(tensor(storage()[:-2] + b"NtQ")), keys=()),
    "old_key_unknown": lambda: old(state(tensor(storage()[:-2] + b"NtQ")), keys=("0", "9"), storages=bytes(64)),
}
CHECKPOINTS: dict[str, Callable[[], bytes]] = {
    "header_of_2_to_63": lambda: struct.pack("<Q", 2**63) + b"{}",
    "header_is_no_json": lambda: safetensors(b"{" * 50),
    "tensor_beyond_the_file": lambda: safetensors(
        {"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}
    ),
    "shape_overflows": lambda: safetensors({"a": {"dtype": "F32", "shape": [2**33, 2**33], "data_offsets": [0, 0]}}),
    "overlapping_tensors": lambda: safetensors(
        {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}, bytes(8)
    ),
    "own_header_too_deep": lambda: safetensors({"__metadata__": {"maenas": "[" * 100_000}}),
    "names_code": lambda: checkpoint(architecture={"spec": own_code("os:system")}),
    "names_a_module_beside_it": lambda: checkpoint(architecture={"spec": own_code("RAN:Block")}),
    "baseline_is_a_path": lambda: checkpoint(architecture={"baseline": "../../etc/passwd"}),
    "side_of_a_billion": lambda: checkpoint(image_size=10**9),
    "too_many_classes": lambda: checkpoint(classes=["a"] * 100_000),
    "classes_are_a_number": lambda: checkpoint(classes=7),
    "side_is_infinite": lambda: checkpoint(image_size=float("inf")),
    "no_weights": checkpoint,
}
YAML: dict[str, Callable[[], bytes]] = {
    "python_object": lambda: b"!!python/object/apply:os.system ['touch RAN']",
    "python_name": lambda: b"spec: !!python/name:os.system",
    "laughs": laughs,
    "merged_laughs": merged_laughs,
    "holds_itself": lambda: b"&a [*a]",
    "key_holds_itself": lambda: b"&a {*a : 1}",
    "ten_thousand_brackets": lambda: b"[" * 10_000,
    "number_of_5000_digits": lambda: b"spec: " + b"9" * 5000,
    "five_mebibytes": lambda: b"spec: [" + b"1," * (5 << 19) + b"]",
    "names_code": lambda: json.dumps({"format": "maenas-spec/1", "spec": own_code("os:system")}).encode(),
    "width_of_a_billion": lambda: json.dumps(
        {"format": "maenas-spec/1", "spec": own_code("plain") | {"stem": {"kind": "conv", "out": 10**9}}}
    ).encode(),
}
ZIPS: dict[str, Callable[[], bytes]] = {
    "outside": lambda: zip_of({"../RAN": b"x"}),
    "absolute": lambda: zip_of({"/tmp/RAN": b"x"}),
    "link": lambda: zip_of({"images": b"/etc"}, link=True),
    "grows_a_thousand_times": lambda: zip_of({"images/a.jpg": bytes(1 << 20)}).replace(
        struct.pack("<I", 1 << 20), struct.pack("<I", (1 << 32) - 2)
    ),
    "no_zip": lambda: b"PK\x05\x06",
}
ATTACKS: dict[str, tuple[str, dict[str, Callable[[], bytes]]]] = {
    "torch": (".pth", TORCH),
    "checkpoint": (".safetensors", CHECKPOINTS),
    "spec": (".yaml", YAML),
    "zip": (".zip", ZIPS),
    "image": (".png", {"pixels_2_to_60": lambda: png(2**30, 2**30), "a_square_of_60000": lambda: png(60_000, 60_000)}),
    "search": (".npz", {"objects": objects, "bomb": numpy_bomb}),
    "json": (".json", {"brackets": lambda: b"[" * 100_000, "digits": lambda: b"9" * 5000, "no_text": lambda: b"\xff\xfe"}),
    "voc": (
        ".xml",
        {"entities": lambda: b"<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>",
         "outside": lambda: b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><annotation/>",
         "utf16_entities": lambda: "<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>".encode("utf-16")},
    ),
}  # fmt: skip


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind, (suffix, attacks) in ATTACKS.items():
        for name, make in attacks.items():
            (folder / f"{kind}_{name}{suffix}").write_bytes(make())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
