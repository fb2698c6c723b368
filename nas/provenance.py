"""What made a result: the commit of the checkout that runs, and the versions of what computes."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nas import __version__


@cache
def commit() -> str:
    """The commit of the checkout that runs, empty outside one."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # an installed package may lie in somebody else's checkout
        return ""
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def made_with(*packages: str) -> dict[str, str]:
    """Versions of maenas, Python and the packages that are installed of those named, and the commit where there is one."""
    found = {"maenas": __version__, "commit": commit(), "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {name: value for name, value in found.items() if value}
