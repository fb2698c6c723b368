"""Parts of the page that commands write: between two marks, so that the words around them stay."""

from __future__ import annotations

from pathlib import Path

from nas.errors import UserError
from nas.files import read_text, write_atomic


def marks(name: str) -> tuple[str, str]:
    """The lines between which a part stands."""
    return f"<!-- {name} -->", f"<!-- end of {name} -->"


def read_part(page: Path, name: str) -> str:
    """What stands between the marks; raises UserError where they are not."""
    begin, end = marks(name)
    text = read_text(page)
    if begin not in text or end not in text:
        raise UserError(f"{page} lacks the lines {begin} and {end}, between which this stands")
    return text.split(begin)[1].split(end)[0].strip()


def write_part(page: Path, name: str, part: str) -> None:
    """Exchange what stands between the marks; where there is no page it is made of this part alone."""
    begin, end = marks(name)
    if not page.exists():
        write_atomic(page, f"{begin}\n{end}\n")
    read_part(page, name)
    text = read_text(page)
    write_atomic(page, f"{text.split(begin)[0]}{begin}\n{part}\n{end}{text.split(end)[1]}")
