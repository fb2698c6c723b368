"""Tables say where they hold: map sizes and processor."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace

import pytest

from nas.blocks.operation import Operation
from nas.cost.latency import LatencyTable
from nas.cost.table_file import Header, map_sizes, read_table, require_covered, shipped, warn_elsewhere
from nas.errors import Caution, UserError
from nas.frame import Frame
from nas.lowering import operations
from search_spaces.published import load_published

HEADER = Header(
    "desk", "measured", "a desk", "onnxruntime", "fp32", 1, "ms", {}, {"mape_percent": 2.5},
    processor="abacus", image_sizes=(320,), map_sizes=(10, 160),
)  # fmt: skip


def conv(side: int) -> Operation:
    return Operation("conv", 16, 16, side, side, side, side, 3)


def test_map_sizes_are_those_that_convolutions_give() -> None:
    pooled = Operation("globalpool", 16, 16, 1, 1, 20, 20)
    squeezed, wide = Operation("conv", 16, 4, 1, 1, 1, 1, 1), Operation("conv", 16, 16, 12, 30, 24, 60, 3, 2)
    assert map_sizes([conv(20), pooled, squeezed, wide]) == (12, 30)
    assert map_sizes([pooled, squeezed]) is None
    spec = Frame(image_size=320).detector(load_published("tinynas_l20_k1kx"))
    assert map_sizes(operations(spec, "folded")) == (10, 160)


def test_inside_is_silent_an_octave_outside_is_told_with_the_error_farther_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert require_covered(HEADER, [conv(10), conv(160)])
        assert require_covered(replace(HEADER, map_sizes=None), [conv(3)])
        assert not require_covered(HEADER, [conv(5)], told=True)
    for side in (5, 320):
        with pytest.warns(Caution, match=rf"of 10 to 160 pixels \(images of 320\), not of {side}: .* \(2.5 %\)"):
            assert not require_covered(HEADER, [conv(side), conv(80)])
    for side in (4, 321):
        with pytest.raises(UserError, match=r"not of \d+: measure one with python -m nas.profile image_size="):
            require_covered(HEADER, [conv(side)])
    with pytest.warns(Caution, match="not of 2"):
        assert not require_covered(replace(HEADER, kind="kernel_model"), [conv(2)])


def test_a_table_warns_once_and_refuses_always() -> None:
    table = LatencyTable.load("t4_tensorrt_fp16")
    with pytest.warns(Caution, match="holds for maps of 20 to 320 pixels") as told:
        table.price(conv(10))
        table.price(conv(12))
    assert len(told) == 1


def test_another_processor_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.cost.table_file.cpu_name", lambda: "slide rule")
    with pytest.warns(Caution, match="desk was measured on abacus, this is slide rule"):
        warn_elsewhere(HEADER)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_elsewhere(replace(HEADER, processor="slide rule"))
        warn_elsewhere(replace(HEADER, runtime="tensorrt"))


@pytest.mark.parametrize("name", shipped())
def test_shipped_tables_serve_160_to_640_pixels(name: str) -> None:
    from nas.cost.table_file import find_table

    header, _ = read_table(find_table(name))
    measured = header.kind == "measured"
    for side in (160, 192, 320, 416, 640):
        listed = operations(Frame(image_size=side).detector(load_published("tinynas_l20_k1kx")), "folded")
        with warnings.catch_warnings():
            warnings.simplefilter("error" if measured else "ignore")
            assert require_covered(header, listed) == (measured or side == 640)
    assert header.processor and (not measured or header.map_sizes == (5, 320))


def test_commands_tell_a_caution_once_in_one_line() -> None:
    code = (
        "import warnings; from nas.errors import Caution, tell_cautions; tell_cautions()\n"
        "for text in ('far away', 'far away', 'far off'):\n"
        "    with warnings.catch_warnings(): pass\n"  # which makes Python forget what it has shown
        "    warnings.warn(text, Caution)\n"
        "warnings.warn('another')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[:2] == ["warning: far away", "warning: far off"]
    assert "UserWarning: another" in done.stderr
