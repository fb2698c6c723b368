"""Resumable state as one NumPy file: written atomically, read without unpickling anything."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.errors import UserError
from nas.files import write_atomic

FORMAT = "maenas-search-state/1"


def save_arrays(path: Path, identity: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays under their names, with the format and the identity of the search that they belong to."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, format=np.array(FORMAT), identity=np.array(identity), **arrays)
    write_atomic(path, content.getvalue())


def load_arrays(path: Path, identity: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a file; raises UserError if it is damaged, of another format, or of another search."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{path} is not a readable search state ({error}); delete it to start afresh") from None
    if str(arrays.pop("format", "")) != FORMAT:
        raise UserError(f"{path} is not in the format {FORMAT}; delete it to start afresh")
    if str(arrays.pop("identity", "")) != identity:
        raise UserError(f"{path} belongs to another search: resume it with the settings that it was started with")
    return arrays
