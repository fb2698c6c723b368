"""Files that `torch.save` wrote, read without pickle: an interpreter of the opcodes that tensors and plain data need.

Everything else in such a file is refused. Written from the descriptions of the opcodes in CPython's `pickletools`.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nas.errors import UserError, shown

#: Bytes of a file and of its description, entries of it and values in it: far beyond every published detector.
MOST_BYTES, MOST_DESCRIPTION, MOST_ENTRIES, MOST_VALUES = 8 << 30, 64 << 20, 100_000, 5_000_000
MOST_DIMENSIONS = 16
#: The first number of files from before torch 1.6, and the version that follows it.
MAGIC, OLD_VERSION = 0x1950A86A20F9469CFC6C, 1001

STORAGES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
        "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}  # fmt: skip


class _Refused(Exception):
    """Something that a file of tensors does not need."""


class _Damaged(Exception):
    """Bytes that no writer leaves."""


class _Name(NamedTuple):
    """What a file calls by module and name; a word and nothing more."""

    module: str
    name: str


class _Storage(NamedTuple):
    """The flat numbers that tensors are views of."""

    key: str
    dtype: torch.dtype
    length: int


_MARK = object()
_ORDERED = _Name("collections", "OrderedDict")
_TENSOR = _Name("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = _Name("torch._utils", "_rebuild_parameter")
_SIZE = _Name("torch", "Size")


def read_torch(path: str | Path) -> object:
    """Tensors (on the CPU) in plain containers of a `.pth` or `.pt` file; nothing in it is run.

    Raises UserError, in one line, for a file that holds anything else, that is damaged, or that is larger than 8 GiB.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise _Refused(f"more than {MOST_BYTES >> 30} GiB")
        with path.open("rb") as file:
            head = file.read(64)
        return _read_zip(path) if head.startswith(b"PK") else _read_old(path, head)
    except _Refused as error:
        raise UserError(
            f"{path} is refused: it holds {error}; of torch files only tensors in plain containers are read"
        ) from None
    except (_Damaged, OSError, ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, EOFError,
            struct.error, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:  # fmt: skip
        told = str(error).splitlines()[0] if isinstance(error, _Damaged | OSError) else type(error).__name__
        raise UserError(f"{path} is damaged or not a torch file ({told})") from None


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) > MOST_ENTRIES or len(entries) < len(archive.infolist()):
            raise _Refused(f"{len(archive.infolist())} entries, or two of one name")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise _Refused("compressed entries")
        if sum(entry.file_size for entry in entries.values()) > path.stat().st_size:
            raise _Refused("entries that overlap")
        descriptions = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(descriptions) != 1:
            raise _Damaged("no data.pkl")
        root = descriptions[0].removesuffix("data.pkl")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise _Refused("numbers in big-endian order")
        if entries[descriptions[0]].file_size > MOST_DESCRIPTION:
            raise _Refused(f"a description of more than {MOST_DESCRIPTION >> 20} MiB")

        def stored(storage: _Storage) -> bytearray:
            return bytearray(archive.read(f"{root}data/{storage.key}"))

        return _Reader(archive.read(descriptions[0]), stored).value()


def _read_old(path: Path, head: bytes) -> Any:
    """A file from before torch 1.6: five pickles, then the storages, each with its length before it."""

    def nothing(storage: _Storage) -> bytearray:
        raise _Damaged("a storage where none can be")

    if _Reader(head, nothing).value() != MAGIC:
        raise _Damaged("neither a zip archive nor an older torch file")
    data = path.read_bytes()
    reader = _Reader(data, nothing)
    facts = [reader.value() for _ in range(3)]
    if facts[1] != OLD_VERSION or not isinstance(facts[2], dict) or facts[2].get("little_endian") is not True:
        raise _Refused("another version, or numbers in big-endian order")
    start = reader.place
    found: dict[str, _Storage] = {}

    def noted(storage: _Storage) -> bytearray:
        """The first reading learns which storages there are; what is built then is thrown away."""
        if found.setdefault(storage.key, storage) != storage:
            raise _Damaged("two storages of one name")
        return bytearray(0)

    first = _Reader(data, noted, start, build=False)
    first.value()
    keys = first.value()
    if not isinstance(keys, list) or len(set(map(str, keys))) != len(keys):
        raise _Damaged("no list of storages")
    contents, place = {}, first.place
    for key in keys:
        (count,) = struct.unpack_from("<q", data, place)
        storage = found[key]
        size = count * storage.dtype.itemsize
        if count != storage.length or place + 8 + size > len(data):
            raise _Damaged("a storage that is shorter than said")
        contents[key] = data[place + 8 : place + 8 + size]
        place += 8 + size
    return _Reader(data, lambda storage: bytearray(contents[storage.key]), start).value()


class _Reader:
    """Runs the opcodes of pickle protocol 2 from a place in bytes; `value()` reads up to the next STOP.

    stored: the bytes of a storage, asked for once each. build false leaves tensors unbuilt (None).
    """

    def __init__(
        self, data: bytes, stored: Callable[[_Storage], bytearray], place: int = 0, build: bool = True
    ) -> None:
        self.data, self.stored, self.place, self.build = data, stored, place, build
        self.flat: dict[str, tuple[_Storage, Tensor]] = {}

    def value(self) -> Any:
        """The next whole object."""
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        values = 0
        while True:
            code = self._take(1)
            if code == b".":
                if len(self.stack) != 1 or self.stack[0] is _MARK:
                    raise _Damaged("it ends too early")
                return self.stack.pop()
            step = _OPCODES.get(code)
            if step is None:
                raise _Refused(_REFUSED.get(code, f"the opcode {code!r}"))
            values += 1
            if values > MOST_VALUES:
                raise _Refused(f"more than {MOST_VALUES} values")
            step(self)

    def _take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.data) - self.place:
            raise _Damaged("it ends too early")
        self.place += count
        return self.data[self.place - count : self.place]

    def _number(self, kind: str) -> Any:
        return struct.unpack(kind, self._take(struct.calcsize(kind)))[0]

    def _line(self) -> str:
        end = self.data.find(b"\n", self.place, self.place + 256)
        if end < 0:
            raise _Damaged("a name without an end")
        return self._take(end + 1 - self.place)[:-1].decode()

    def _pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise _Damaged("a mark where a value should be")
        return value

    def _since_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:  # IndexError where there is none
            place -= 1
            if place < 0:
                raise _Damaged("no mark")
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    # What the opcodes do, in the order of _OPCODES.

    def _protocol(self) -> None:
        if self._number("B") != 2:
            raise _Refused("another protocol than 2")

    def _text(self) -> None:
        self.stack.append(self._take(self._number("<I")).decode("utf-8", "surrogatepass"))

    def _integer(self) -> None:
        self.stack.append(int.from_bytes(self._take(self._number("B")), "little", signed=True))

    def _tuple(self, count: int | None = None) -> None:
        items = self._since_mark() if count is None else [self._pop() for _ in range(count)][::-1]
        self.stack.append(tuple(items))

    def _put(self, kind: str) -> None:
        value = self._pop()
        self.stack.append(value)
        self.memo[self._number(kind)] = value

    def _append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise _Damaged("values for what is no list")
        target.extend(values)

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise _Damaged("entries for what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int | float | None):  # a tuple of tuples of ... is hashed for ever
                raise _Refused("a key that is neither text nor number")
            target[key] = value

    def _pair(self) -> list[Any]:
        value = self._pop()
        return [self._pop(), value]

    def _name(self) -> None:
        name = _Name(self._line(), self._line())
        known = name in (_ORDERED, _TENSOR, _PARAMETER, _SIZE) or (name.module == "torch" and name.name in STORAGES)
        if not known:
            raise _Refused(shown(f"{name.module}.{name.name}"))
        self.stack.append(name)

    def _build(self) -> None:
        """Attributes: a state dict carries versions of its parts, which nobody needs."""
        self._pop()
        if type(self.stack[-1]) is not dict:
            raise _Refused("attributes of an object")

    def _persistent(self) -> None:
        kind, storage, key, _, count, *view = self._pop()  # view: in older files alone
        named = kind == "storage" and isinstance(storage, _Name) and storage.name in STORAGES
        if not named or any(part is not None for part in view):
            raise _Refused("something other than a storage")
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise _Damaged("a storage without name or size")
        self.stack.append(_Storage(key, STORAGES[storage.name], count))

    def _call(self) -> None:
        arguments, name = self._pop(), self._pop()
        if type(arguments) is not tuple:
            raise _Damaged("arguments that are no tuple")
        if name == _ORDERED and not arguments:
            value: Any = {}
        elif name == _SIZE and len(arguments) == 1 and isinstance(arguments[0], tuple):
            value = arguments[0]
        elif name == _PARAMETER and len(arguments) == 3 and isinstance(arguments[0], Tensor | None):
            value = arguments[0]
        elif name == _TENSOR and 6 <= len(arguments) <= 7 and isinstance(arguments[0], _Storage):
            value = self._tensor(*arguments[:4])
        else:
            raise _Refused(f"a call of {shown(name)}")
        self.stack.append(value)

    def _tensor(self, storage: _Storage, offset: Any, size: Any, stride: Any) -> Tensor | None:
        numbers = [offset, *size, *stride]
        if len(size) != len(stride) or len(size) > MOST_DIMENSIONS or any(type(n) is not int or n < 0 for n in numbers):
            raise _Damaged("a tensor without a proper shape")
        count = 1
        for side in size:
            count *= side
        last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
        if count > storage.length or (count and last >= storage.length):
            raise _Damaged("a tensor that is larger than its storage")
        flat = self._flat(storage)
        return flat.as_strided(size, stride, offset if count else 0) if flat is not None else None

    def _flat(self, storage: _Storage) -> Tensor | None:
        known = self.flat.get(storage.key)
        if known is not None:
            if known[0] != storage:
                raise _Damaged("two storages of one name")
            return known[1]
        content = self.stored(storage)
        if not self.build:
            return None
        if len(content) != storage.length * storage.dtype.itemsize:
            raise _Damaged("a storage of another size than said")
        if not content:
            flat = torch.empty(0, dtype=storage.dtype)
        elif storage.dtype == torch.bool:
            flat = torch.frombuffer(content, dtype=torch.uint8) != 0
        else:
            flat = torch.frombuffer(content, dtype=storage.dtype)
        self.flat[storage.key] = storage, flat
        return flat


def _pushed(make: Callable[[_Reader], Any]) -> Callable[[_Reader], None]:
    return lambda reader: reader.stack.append(make(reader))


#: Each opcode of protocol 2 that a file of tensors can hold, and what it does.
_OPCODES: dict[bytes, Callable[[_Reader], None]] = {
    b"\x80": _Reader._protocol,
    b"X": _Reader._text,
    b"\x8a": _Reader._integer,
    b"t": _Reader._tuple,
    b"\x85": lambda reader: reader._tuple(1),
    b"\x86": lambda reader: reader._tuple(2),
    b"\x87": lambda reader: reader._tuple(3),
    b"q": lambda reader: reader._put("B"),
    b"r": lambda reader: reader._put("<I"),
    b"a": lambda reader: reader._append([reader._pop()]),
    b"e": lambda reader: reader._append(reader._since_mark()),
    b"s": lambda reader: reader._set(reader._pair()),
    b"u": lambda reader: reader._set(reader._since_mark()),
    b"c": _Reader._name,
    b"b": _Reader._build,
    b"Q": _Reader._persistent,
    b"R": _Reader._call,
    b"(": _pushed(lambda reader: _MARK),
    b"h": _pushed(lambda reader: reader.memo[reader._number("B")]),
    b"j": _pushed(lambda reader: reader.memo[reader._number("<I")]),
    b"N": _pushed(lambda reader: None),
    b"\x88": _pushed(lambda reader: True),
    b"\x89": _pushed(lambda reader: False),
    b"K": _pushed(lambda reader: reader._number("B")),
    b"M": _pushed(lambda reader: reader._number("<H")),
    b"J": _pushed(lambda reader: reader._number("<i")),
    b"G": _pushed(lambda reader: reader._number(">d")),
    b"]": _pushed(lambda reader: []),
    b"}": _pushed(lambda reader: {}),
    b")": _pushed(lambda reader: ()),
}
#: Opcodes that a person may want to know by name.
_REFUSED = {
    b"\x93": "a call by name (STACK_GLOBAL)",
    b"i": "a call (INST)",
    b"o": "a call (OBJ)",
    b"\x81": "an object (NEWOBJ)",
    b"\x92": "an object (NEWOBJ_EX)",
    b"\x82": "an extension (EXT1)",
    b"P": "a named storage in text (PERSID)",
}
