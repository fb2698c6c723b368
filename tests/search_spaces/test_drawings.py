"""Any backbone or detector scaled to a cost: widths alone move, and the result is what it should cost."""

from __future__ import annotations

from random import Random

import pytest

from nas.cost.count import count_spec
from nas.cost.latency import LatencyTable
from nas.errors import UserError
from nas.frame import Frame
from nas.lowering import operations
from nas.searchers.problem import Objective
from nas.spec import C2PSA, Backbone, DetectorSpec, Spec, attention_heads
from search_spaces import find_space
from search_spaces.drawings import (
    DRAWN,
    PUBLISHED,
    backbone_of_text,
    fit_to_cost,
    hand_drawn,
    neighbours,
    scaled,
    text_of,
)
from search_spaces.published import load_published


def milliseconds(side: int = 640, hardware: str = "t4_tensorrt_fp16"):  # type: ignore[no-untyped-def]
    objective = Objective(None, LatencyTable.load(hardware), Frame(image_size=side))
    return lambda spec: objective.evaluate(spec)["latency_ms"]


def fixed_parts(spec: Spec) -> list[object]:
    """What scaling must not change."""
    backbone = spec.backbone if isinstance(spec, DetectorSpec) else spec
    rest = (spec.head, spec.image_size, spec.neck.depth) if isinstance(spec, DetectorSpec) else ()
    shape = [(type(b), getattr(b, "depth", 1), b.stride, getattr(b, "down", "")) for b in backbone.blocks]
    return [shape, backbone.out_blocks, backbone.spp, backbone.activation, backbone.reparam, backbone.stem.kind, *rest]


def test_shape_texts_are_backbones_and_come_back() -> None:
    for text in (*PUBLISHED.values(), *DRAWN.values()):
        assert text_of(backbone_of_text(text)) == text
    deployed = load_published("damo-yolo-t").backbone  # type: ignore[union-attr]
    assert operations(backbone_of_text(PUBLISHED["damo-t"]), image_size=320) == operations(deployed, image_size=320)
    with pytest.raises(UserError, match="not a shape"):
        backbone_of_text("24 64/24x2 96/64x2")


@pytest.mark.parametrize("name", list(hand_drawn()))
def test_every_drawing_meets_a_parameter_count_by_widths_alone(name: str) -> None:
    drawing = hand_drawn()[name]
    found = fit_to_cost(drawing, lambda spec: count_spec(spec).params / 1e6, 2.0, 0.02)
    assert found is not None and count_spec(found).params / 1e6 == pytest.approx(2.0, rel=0.02)
    assert fixed_parts(found) == fixed_parts(drawing)


def test_widths_are_fitted_to_a_latency_or_given_up() -> None:
    latency = milliseconds()
    start = backbone_of_text(DRAWN["resnet18"])
    found = fit_to_cost(start, latency, 3.0)
    assert found is not None and latency(found) == pytest.approx(3.0, rel=0.01)
    assert [block.depth for block in found.blocks] == [block.depth for block in start.blocks]  # type: ignore[union-attr]
    assert fit_to_cost(start, latency, 0.3) is None
    assert fit_to_cost(backbone_of_text(DRAWN["even-1"]), latency, 40.0, widest=512) is None


@pytest.mark.parametrize("name", ["tinynas_k1kx", "tinynas_kxkx", "tinynas_k1dwk1", "gelan", "c3k2", "giraffe"])
def test_random_members_of_every_space_are_scaled(name: str) -> None:
    space, rng = find_space(name), Random(0)
    for _ in range(4):
        spec = space.sample(rng)
        target = 0.7 * count_spec(spec).macs
        found = fit_to_cost(spec, lambda item: float(count_spec(item).macs), target, 0.03, widest=2048)
        assert found is not None and count_spec(found).macs == pytest.approx(target, rel=0.03)
        assert fixed_parts(found) == fixed_parts(spec)
    assert scaled(scaled(spec, 2.0), 1.0) == scaled(spec, 2.0)


def test_a_neighbour_has_one_other_width_and_heads_stay_whole() -> None:
    drawing = scaled(hand_drawn()["yolo11-n"], 1.6)
    assert isinstance(drawing, Backbone)
    for factor in (0.3, 0.9, 1.3, 1.55, 2.1, 2.9):
        last = scaled(drawing, factor).blocks[-1]
        assert isinstance(last, C2PSA) and last.out == scaled(drawing, factor).blocks[-2].out
        assert last.out // 2 % attention_heads(last.out // 2) == 0
    for other in neighbours(drawing):
        changed = [a != b for a, b in zip(drawing.blocks, other.blocks, strict=True)]
        assert changed in ([*changed[:-2], True, True], changed) and 1 <= sum(changed) <= 2
    whole = Frame(out=(64, 128, 256)).detector(drawing)
    necks = [n.neck.out for n in neighbours(whole) if n.neck != whole.neck]
    assert len(necks) == 6 and (56, 128, 256) in necks
