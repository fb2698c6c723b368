"""maenas: find, train and prove the best object detector for a hardware budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.api import build, count, find, find_trained, latency, load, score
    from nas.detector import Detector

__version__ = "0.1.0"
__all__ = ["Detector", "build", "count", "find", "find_trained", "latency", "load", "score"]


def __getattr__(name: str) -> object:
    """Public names are imported at first use, so that `import nas` costs nothing and never brings torch."""
    if name == "Detector":
        from nas.detector import Detector

        return Detector
    if name in __all__:
        import nas.api

        return getattr(nas.api, name)
    raise AttributeError(f"module 'nas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
