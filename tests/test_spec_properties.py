"""Properties of specs and their files on random architectures of every space."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas.cost.count import count_operations, count_spec
from nas.errors import SpecError, UserError
from nas.files import load_spec, save_spec
from nas.lowering import backbone_operations, operations
from nas.lowering.repgfpn import hidden_width
from nas.spec import Backbone, DetectorSpec, NeckSpec, Spec, digest, from_dict, to_dict
from search_spaces import find_space, load_published, published_names
from search_spaces.giraffe import SPACES as GIRAFFES
from search_spaces.tinynas import SPACES as TINYNAS
from search_spaces.tinynas import TinyNASSpace

relaxed = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """A member of any space, or a published architecture."""
    name = draw(st.sampled_from([*TINYNAS, *GIRAFFES, "published"]))
    if name == "published":
        return load_published(draw(st.sampled_from(published_names())))
    return find_space(name).sample(Random(draw(st.integers(0, 2**32))))


@relaxed
@given(specs())
def test_files_keep_a_spec_as_it_is(tmp_path: Path, spec: Spec) -> None:
    path = save_spec(tmp_path / "spec.yaml", spec, name="any", metrics={"score": 1.5})
    again = load_spec(path)
    assert again == spec and digest(again) == digest(spec) and hash(again) == hash(spec)
    assert from_dict(to_dict(spec)) == spec
    first = path.read_bytes()
    assert save_spec(path, again, name="any", metrics={"score": 1.5}).read_bytes() == first


@settings(relaxed, max_examples=200)
@given(spec=specs(), place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_changed_byte_gives_an_error_or_the_same_spec(tmp_path: Path, spec: Spec, place: float, value: int) -> None:
    path = save_spec(tmp_path / "spec.yaml", spec, name="any")
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] = value
    path.write_bytes(data)
    try:
        again = load_spec(path)
    except UserError as error:
        assert "\n" not in str(error) and "spec.yaml" in str(error)
    else:
        assert again == spec


@relaxed
@given(specs())
def test_costs_are_positive_and_add_up_over_blocks(spec: Spec) -> None:
    backbone = spec.backbone if isinstance(spec, DetectorSpec) else spec
    side = 64 * (2 if backbone.stem.kind == "focus" else 1)
    total = count_spec(backbone, image_size=side)
    parts = [count_operations(group) for group in backbone_operations(backbone, side)]
    for name in ("params", "macs", "activations"):
        assert all(getattr(part, name) > 0 for part in parts)
        assert sum(getattr(part, name) for part in parts) == getattr(total, name)
    assert total.layers > 0 and total.rho > 0
    if isinstance(spec, DetectorSpec):
        whole = count_spec(spec, image_size=side)
        rest = count_operations(op for op in operations(spec, image_size=side) if op.role in ("neck", "head"))
        assert (whole.params, whole.macs) == (total.params + rest.params, total.macs + rest.macs)


@relaxed
@given(name=st.sampled_from(list(TINYNAS)), seed=st.integers(0, 2**32), where=st.integers(0, 4))
def test_costs_grow_with_depth(name: str, seed: int, where: int) -> None:
    space: TinyNASSpace = TINYNAS[name]
    spec = space.sample(Random(seed))
    old = space.searched(spec)[where]
    new = space.block(where, old.out, old.bottleneck, old.depth + 1, old.kernel)
    deeper = Backbone(
        spec.stem,
        (*spec.blocks[:where], new, *spec.blocks[where + 1 :]),
        spec.out_blocks,
        spec.spp,
        spec.activation,
        spec.reparam,
    )
    less, more = count_spec(spec, image_size=128), count_spec(deeper, image_size=128)
    assert more.layers == less.layers + space.unit_layers
    assert more.params > less.params and more.macs > less.macs and more.activations > less.activations


@pytest.mark.parametrize(
    ("fields", "before", "words"),
    [
        ({"inner": 1}, 16, "GELAN.inner must be at least 2"),
        ({"entry": 15, "down": "adown"}, 16, "GELAN.entry must be even with down=adown, got 15"),
        ({"down": "adown"}, 15, "an adown splits its input in halves, its width 15 must be even"),
        ({"out": 10**30}, 16, "GELAN.out must be a positive integer of at most 100,000"),
        ({"type": ["GELAN"]}, 16, "unknown block type ['GELAN']"),
        ({"depth": True}, 16, "depth must be int, got True"),
        ({"depth": 10**30}, 16, "GELAN.depth must be 0"),
    ],
)
def test_blocks_that_cannot_be_built_are_refused(fields: dict[str, Any], before: int, words: str) -> None:
    gelan = {"type": "GELAN", "out": 16, "entry": 16, "hidden": 16, "inner": 8, "depth": 1} | fields
    blocks = [{"type": "Plain", "out": before, "kernel": 3, "stride": 2}, gelan]
    with pytest.raises(SpecError) as caught:
        from_dict({"stem": {"kind": "conv", "out": 16}, "blocks": blocks, "out_blocks": [0, 1]})
    assert words in str(caught.value)


def test_a_hidden_ratio_that_leaves_no_channel_is_refused() -> None:
    neck = NeckSpec((4, 4, 4), hidden_ratio=(1 / 16, 1 / 16, 1 / 16))
    with pytest.raises(SpecError, match="hidden ratio 0.0625 leaves nothing of the neck's 2 channels"):
        hidden_width(neck, 2, 0)
    with pytest.raises(SpecError, match="three numbers from 0.0625 to 8"):
        NeckSpec((16, 16, 16), hidden_ratio=(0.001, 1.0, 1.0))
