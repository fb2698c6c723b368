"""The published architectures, one spec file each; a file names the space it is judged by and the limits it breaks."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path

from nas.errors import UserError
from nas.files import read_spec_document
from nas.spec import Spec

FOLDER = Path(__file__).resolve().parent


def published_names() -> tuple[str, ...]:
    """Names of all published architectures, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def published_path(name: str) -> Path:
    """The file of a published architecture; case, `-` and `_` do not matter, nor does DAMO-YOLO's configuration name.

    Raises UserError with the nearest known names for an unknown one.
    """
    known = _keys()
    key = _key(name)
    if key not in known:
        near = difflib.get_close_matches(key, known, n=4, cutoff=0.5)
        names = ", ".join(dict.fromkeys(known[item] for item in near)) or ", ".join(published_names())
        raise UserError(f"unknown architecture {name!r}; did you mean one of: {names}?")
    return FOLDER / f"{known[key]}.yaml"


def is_published(name: str) -> bool:
    """Whether `load_published` knows the name."""
    return _key(name) in _keys()


def load_published(name: str) -> Spec:
    """The spec of a published architecture, such as "damo-yolo-s" (a detector) or "tinynas_l25_k1kx" (a backbone)."""
    return published_document(name)[0]


@cache
def _document(path: Path) -> tuple[Spec, dict[str, object]]:
    return read_spec_document(path)


def published_document(name: str) -> tuple[Spec, dict[str, object]]:
    """The spec and what its file says of it: description, breaks, provenance (source, space, published figures)."""
    spec, known = _document(published_path(name))
    return spec, dict(known)


#: Official configuration names that differ from ours.
_OFFICIAL = {
    "tinynasl20t": "damo-yolo-t",
    "tinynasl25s": "damo-yolo-s",
    "tinynasl35m": "damo-yolo-m",
    "tinynasl45l": "damo-yolo-l",
    "tinynasl18ns": "damo-yolo-ns",
    "tinynasl18nm": "damo-yolo-nm",
    "tinynasl20nl": "damo-yolo-nl",
    "tinynasl20n": "damo-yolo-n",
}


def _key(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


@cache
def _keys() -> dict[str, str]:
    """Every accepted spelling without separators -> name."""
    return {_key(name): name for name in published_names()} | _OFFICIAL
