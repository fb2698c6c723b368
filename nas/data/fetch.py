"""Gets the archives of a data set: downloaded once, checked, unpacked safely."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from nas.data.annotated import load_annotated, place_annotated
from nas.data.options import DataConfig
from nas.errors import UserError

CHUNK = 1 << 20
Progress = Callable[[str, int, int], None]


def fetch_data(config: DataConfig, output: Path, progress: Progress | None = None) -> list[str]:
    """Download and check the archives of data.download into the folder `output`, and lay their data out there.

    An archive that is already there with the right checksum is not downloaded again. `progress(name, done, total)`
    counts bytes. Returns what there is to say about the data. UserError for an unknown layout, an unreachable URL, a
    wrong checksum or a broken archive; nothing is unpacked then.
    """
    if not config.download:
        raise UserError(f"data {config.name} names nothing to download (data.download); get it by hand into {output}")
    document = None if config.layout == "as_is" else load_annotated(config.layout)
    output.mkdir(parents=True, exist_ok=True)
    archives = [download(item.url, item.checksum, output, progress) for item in config.download]
    if document is not None:
        return place_annotated(document, archives, output)
    for archive in archives:
        unpack(archive, output)
    return []


def download(url: str, checksum: str | None, folder: Path, progress: Progress | None = None) -> Path:
    """The file of a URL in `folder`, complete and with the checksum `md5:HEX` or `sha256:HEX` (None: not checked)."""
    address = urllib.parse.urlsplit(url)
    name = Path(urllib.parse.unquote(address.path)).name
    if address.scheme not in ("http", "https", "file") or not name:
        raise UserError(f"cannot fetch {url!r}: an http, https or file URL of an archive is needed")
    target = folder / name
    if checksum:
        _checksum_kind(checksum)
    if checksum and target.is_file() and file_checksum(target, checksum) == checksum:
        return target
    partial = target.with_name(name + ".part")
    try:
        with urllib.request.urlopen(url, timeout=60) as source, partial.open("wb") as stream:
            _copy(source, stream, name, int(source.headers.get("Content-Length") or 0), progress)
    except (urllib.error.URLError, http.client.HTTPException, OSError, TimeoutError) as error:
        partial.unlink(missing_ok=True)
        reason = getattr(error, "reason", None) or error
        raise UserError(f"cannot fetch {url}: {reason}") from None
    if checksum:
        actual = file_checksum(partial, checksum)
        if actual != checksum:
            partial.unlink()
            raise UserError(f"{url}: checksum is {actual}, not {checksum}; the source has changed or was damaged")
    os.replace(partial, target)
    return target


def file_checksum(path: Path, like: str) -> str:
    """The checksum of a file, written as `like` is: `md5:...` or `sha256:...`."""
    kind = _checksum_kind(like)
    with path.open("rb") as stream:
        return f"{kind}:{hashlib.file_digest(stream, kind).hexdigest()}"


def _checksum_kind(like: str) -> str:
    kind = like.partition(":")[0]
    if kind not in ("md5", "sha256"):
        raise UserError(f"checksum {like!r}: md5:HEX or sha256:HEX")
    return kind


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file; UserError if it is none or if an entry would land outside the folder."""
    try:
        with zipfile.ZipFile(archive) as contents:
            for entry in contents.namelist():
                if not (folder / entry).resolve().is_relative_to(folder.resolve()):
                    raise UserError(f"{archive}: entry {entry!r} points outside the folder; refused")
            contents.extractall(folder)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{archive} cannot be unpacked: {error}") from None


def _copy(source: BinaryIO, stream: BinaryIO, name: str, total: int, progress: Progress | None) -> None:
    if progress is None:
        shutil.copyfileobj(source, stream, CHUNK)
        return
    done = 0
    while chunk := source.read(CHUNK):
        stream.write(chunk)
        done += len(chunk)
        progress(name, done, total)
