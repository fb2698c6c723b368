"""One way to a module: from a name, a spec, a spec file or a checkpoint."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from nas.errors import UserError
from nas.files import is_spec_file, load_spec
from nas.models.backbone import BackboneModule
from nas.models.base import class_names
from nas.models.detector import build_detector
from nas.spec import Backbone, DetectorSpec, Spec

DEFAULT_CLASSES = 80


def build_model(
    source: str | Path | Spec, num_classes: int | None = None, classes: Sequence[str] | None = None
) -> nn.Module:
    """The module of a published or baseline name, a spec, a spec file (.yaml), or a checkpoint (.safetensors).

    A checkpoint brings its weights, the others are freshly initialised. The spec of a bare backbone gives a module that
    returns its maps. Raises UserError for unknown names and files, or classes that a checkpoint was not trained for.
    """
    if isinstance(source, DetectorSpec):
        return build_detector(source, num_classes, classes)
    if isinstance(source, Backbone):
        if num_classes is not None or classes is not None:
            raise UserError("a backbone has no classes: give a detector's spec, or add a neck and a head to this one")
        return BackboneModule(source)
    text = str(source)
    if text.endswith(".safetensors"):
        return _from_checkpoint(text, num_classes, classes)
    if is_spec_file(text):
        return build_model(load_spec(text), num_classes, classes)
    return _by_name(text, num_classes, classes)


def _by_name(name: str, num_classes: int | None, classes: Sequence[str] | None) -> nn.Module:
    from nas.models.baselines import BASELINES, build_baseline, canonical_name
    from search_spaces.published import is_published, load_published, published_names

    if is_published(name):
        return build_model(load_published(name), num_classes, classes)
    if canonical_name(name) is None:
        near = difflib.get_close_matches(name.lower(), [*published_names(), *BASELINES], 6, 0.6)
        hint = f"did you mean {', '.join(sorted(near))}? " if near else ""
        raise UserError(
            f"no file and no model is called {name!r}; {hint}`maenas list models` names those that there are"
        )
    if num_classes is None:
        num_classes = DEFAULT_CLASSES if classes is None else len(classes)
    return build_baseline(name, num_classes, classes=class_names(num_classes, classes))


def _from_checkpoint(path: str, num_classes: int | None, classes: Sequence[str] | None) -> nn.Module:
    from nas.models.checkpoint import load_checkpoint

    model = load_checkpoint(path)
    wanted = num_classes if num_classes is not None else model.num_classes if classes is None else len(classes)
    if wanted != model.num_classes:
        raise UserError(f"{path} has {model.num_classes} classes, not {wanted}: fine-tune it with python -m nas.train")
    if classes is not None:
        model.classes = class_names(wanted, classes)
    return model
