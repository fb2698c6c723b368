"""Search spaces as data, by name, and the published architectures.

A family's module is imported only when one of its spaces is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from nas.errors import UserError, shown
from nas.extensions import found, installed, reference_to
from nas.options import check_fields, lacking_fields, read_object
from nas.spec import Spec
from search_spaces.base import SearchSpace
from search_spaces.published import load_published, published_names

__all__ = [
    "SearchSpace", "changed_limits", "find_space", "load_published", "published_names", "space_names",
]  # fmt: skip

#: Modules with the names in their `SPACES`, in the order in which they are listed, and what each space holds.
FAMILIES: dict[str, dict[str, str]] = {
    "search_spaces.tinynas": {
        "tinynas_k1kx": "TinyNAS: 1x1 and 3x3, up to 25 layers, as in DAMO-YOLO T and S",
        "tinynas_kxkx": "TinyNAS: two 3x3, up to 35 layers, SiLU, as in DAMO-YOLO M",
        "tinynas_k1kxk1": "TinyNAS: bottlenecks of ResNet-50's kind, up to 91 layers",
        "tinynas_k1dwk1": "TinyNAS: inverted bottlenecks of MobileNetV2's kind, up to 53 layers",
        "tinynas_k1dwsek1": "TinyNAS: inverted bottlenecks with squeeze-and-excitation, up to 71 layers",
        "official_tiny": "the published problem of TinyNAS for 20 layers, bare backbone",
        "official_small": "the published problem of TinyNAS for 25 layers, bare backbone",
        "official_medium": "the published problem of TinyNAS for 35 layers, bare backbone",
        "official_r50_detection": "the published problem of MAE-DET at ResNet-50's cost, bare backbone",
        "official_r50": "the published problem of DeepMAD at ResNet-50's cost, 224 pixels",
        "official_mbv2": "the published problem of TinyNAS at MobileNetV2's cost, 224 pixels",
        "official_29m_224": "the published problem of DeepMAD for 29 M parameters, 224 pixels",
        "official_29m_288": "the published problem of DeepMAD for 29 M parameters, 288 pixels",
        "official_50m": "the published problem of DeepMAD for 50 M parameters, 224 pixels",
        "official_89m": "the published problem of DeepMAD for 89 M parameters, 224 pixels",
    },
    "search_spaces.giraffe": {
        "giraffe": "backbone and RepGFPN neck searched together (after GiraffeDet); score with mae_neck",
        "giraffe_light": "the same with a light backbone under a heavy neck",
    },
    "search_spaces.gelan": {"gelan": "backbones around YOLOv9's GELAN: widths, ratios, depths, kind of down-sampler"},
    "search_spaces.c3k2": {"c3k2": "backbones around YOLO11's C3k2 with C2PSA: widths, depths, kind of unit"},
    "search_spaces.mixed": {
        "mixed": "TinyNAS units, CSP, GELAN and C3k2 mixed: another kind of block at every resolution"
    },
}


def _shipped(name: str) -> SearchSpace[Spec] | None:
    """The shipped space of that name."""
    family = next((module for module, names in FAMILIES.items() if name in names), None)
    return None if family is None else importlib.import_module(family).SPACES[name]


def space_names() -> tuple[str, ...]:
    """Names of all search spaces."""
    return tuple(name for names in FAMILIES.values() for name in names)


def changed_limits(space: SearchSpace[Spec]) -> dict[str, object]:
    """The limits in which a space differs from the shipped one of its name, for `find_space`; all of any other space."""
    usual = _shipped(space.name)
    limits = space.limits()
    return limits if usual is None or type(usual) is not type(space) else _differences(limits, usual.limits())


def _differences(values: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, object]:
    """The entries of `values` that are not as `usual`; of mappings within, theirs."""
    return {
        key: _differences(value, usual[key]) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value != usual[key]
    }


def find_space(space: str | SearchSpace[Spec] | type[SearchSpace[Spec]], **limits: object) -> SearchSpace[Spec]:
    """The space of that name, with other limits if given; a space or class of one's own is taken as it is.

    A name is that of a shipped space, `module:attribute`, or an installed entry point. Raises UserError for an unknown
    name or limit, or for what is no space.
    """
    value: object = space
    if isinstance(space, str):
        value = _shipped(space) or found(space, "space")
        if value is None:
            raise UserError(
                f"unknown search space {space!r}; known: {', '.join([*space_names(), *installed('space')])}"
            )
    if isinstance(value, type) and issubclass(value, SearchSpace):
        return _made(value, limits)
    if not isinstance(value, SearchSpace):
        raise UserError(f"space {shown(space)} must be a SearchSpace, an object or a class, got {shown(value)}")
    return value.override(**limits) if limits else value


def _made(kind: type[SearchSpace[Spec]], limits: Mapping[str, object]) -> SearchSpace[Spec]:
    """A space of its class, with these limits and the class's own for the others."""
    values = check_fields(kind, limits, "space")
    if "name" in lacking_fields(kind, values):
        values["name"] = kind.__name__
    if lacking := [*lacking_fields(kind, values), *sorted(kind.__abstractmethods__)]:
        raise UserError(f"space {reference_to(kind)} lacks {', '.join(lacking)}")
    return read_object(kind, values, "space")
