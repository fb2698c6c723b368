"""For mkdocs: links to files of the checkout, which the site does not hold, become their names; a missing file is a warning,
which `--strict` takes for an error."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOG = logging.getLogger("mkdocs.hooks.links")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with `[text](../nas/spec.py)` as `text`, followed by the path where the text is another."""

    def named(match: re.Match[str]) -> str:
        text, target = match.groups()
        path = target.partition("#")[0]
        if not (ROOT / path).exists():
            LOG.warning("%s links to %s, which does not exist", page.file.src_path, path)
        return text if path in text else f"{text} (`{path}`)"

    return re.sub(r"\[([^\]]*)\]\(\.\./([^)]*)\)", named, markdown)
