"""maenas: find, train and prove object detectors for a hardware budget."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.api import build, count, find, find_trained, latency, load, profiled, read_data, score
    from nas.commands.compare import compared
    from nas.commands.rank import ranked
    from nas.commands.verify import verified
    from nas.detector import Detector
    from nas.errors import UserError

__version__ = "0.1.0"
#: Every command has its twin among these or in Detector; none has a module's name, which an import would put in its place.
__all__ = [
    "Detector", "UserError", "build", "compared", "count", "find", "find_trained", "latency", "load", "profiled", "ranked",
    "read_data", "score", "verified",
]  # fmt: skip


#: Modules of those that are not in nas.api.
_PLACES = {
    "Detector": "nas.detector",
    "UserError": "nas.errors",
    "compared": "nas.commands.compare",
    "ranked": "nas.commands.rank",
    "verified": "nas.commands.verify",
}


def __getattr__(name: str) -> object:
    """Public names are imported at first use, so that `import nas` costs nothing and never brings torch."""
    if name in __all__:
        return getattr(importlib.import_module(_PLACES.get(name, "nas.api")), name)
    raise AttributeError(f"module 'nas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
