"""The check of options by annotation: what is read, what is refused, and in which words."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from annotated_types import Ge, Gt, Le, MinLen

from nas.errors import UserError
from nas.options import (
    ENDLESS,
    Count,
    ImageSize,
    OneOf,
    Rule,
    Share,
    check_fields,
    check_keywords,
    check_object,
    check_value,
)

Pair = Annotated[tuple[float, float], Rule("lowest first", lambda pair: pair[0] <= pair[1])]


@pytest.mark.parametrize(
    ("value", "annotation", "read"),
    [
        (3, float, 3.0),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([[1, 2.5]], tuple[tuple[float, float], ...], ((1.0, 2.5),)),
        (np.int64(4), int, 4),
        ([np.float32(0.5)], list[float], [0.5]),
        (None, Count | None, None),
        (math.inf, Annotated[float, ENDLESS, Ge(1)], math.inf),
        ("a", Literal["a", "b"], "a"),
        ("x/y", Path, Path("x/y")),
        (-0.0, Share, 0.0),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ([0.1, 1], Pair, (0.1, 1.0)),
    ],
)
def test_values_are_read_in_the_annotated_type(value: Any, annotation: Any, read: Any) -> None:
    result = check_value("x", value, annotation)
    assert result == read and type(result) is type(read)


@pytest.mark.parametrize(
    ("value", "annotation", "line"),
    [
        (True, int, "x must be a whole number, got True"),
        (True, float, "x must be a number, got True"),
        (1, bool, "x must be true or false, got 1"),
        (2.0, Annotated[int, Ge(2)], "x must be a whole number of at least 2, got 2.0"),
        ("2", Count, "x must be a whole number from 1 to 1,000,000,000, got '2'"),
        (10**30, Count, f"x must be a whole number from 1 to 1,000,000,000, got {10**30}"),
        (10**400, float, f"x must be a number, got 1{'0' * 76}..."),
        (math.nan, float, "x must be a number, got nan"),
        (math.inf, Annotated[float, Gt(0)], "x must be a number above 0, got inf"),
        (math.nan, Annotated[float, ENDLESS, Ge(1)], "x must be a number of at least 1, got nan"),
        (1.5, Share, "x must be a number from 0 to 1, got 1.5"),
        (33, ImageSize, "x must be a whole number from 32 to 8,192, a multiple of 32, got 33"),
        ("c", Literal["a", "b"], "x must be one of a, b, got 'c'"),
        (["a"], Literal["a", "b"], "x must be one of a, b, got ['a']"),
        ("c", Annotated[str, OneOf("a", "b")], "x must be one of a, b, got 'c'"),
        ("\ud800", str, "x must be text, got '\\ud800'"),
        ("a\nb", Count, "x must be a whole number from 1 to 1,000,000,000, got 'a\\nb'"),
        ("", Annotated[str, MinLen(1)], "x must be text that is not empty, got ''"),
        ([1, 2.5], tuple[int, ...], "x[1] must be a whole number, got 2.5"),
        ([[1, 2], [3, None]], tuple[tuple[int, int], ...], "x[1][1] must be a whole number, got None"),
        ([1, 2, 3], tuple[int, int], "x must be a list of 2, each a whole number, got [1, 2, 3]"),
        (5, tuple[int, ...], "x must be a list, each entry a whole number, got 5"),
        (
            [],
            Annotated[tuple[int, ...], MinLen(1)],
            "x must be a list of at least 1, each entry a whole number, got []",
        ),
        ({"a": "b"}, dict[str, float], "x.a must be a number, got 'b'"),
        (None, Annotated[int, Le(3)], "x must be a whole number of at most 3, got None"),
        ("a", Count | None, "x must be a whole number from 1 to 1,000,000,000 or null, got 'a'"),
        ([1.0, 0.1], Pair, "x must be a list of 2, each a number, lowest first, got [1.0, 0.1]"),
    ],
)
def test_what_is_refused_is_told_in_one_line(value: Any, annotation: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        check_value("x", value, annotation)
    assert str(caught.value) == line


def test_what_cannot_be_printed_is_refused_all_the_same() -> None:
    with pytest.raises(UserError, match="x must be a whole number .*, got something too large to show"):
        check_value("x", 10**5000, Count)


@dataclass
class Inner:
    rate: Share = 0.5


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    several: list[Inner] = field(default_factory=list)
    maybe: Inner | None = None
    count: Count = 1


def test_nested_dataclasses_are_checked_by_their_dotted_names() -> None:
    check_object(Outer(), "trainer")
    check_fields(Outer, {"inner": {"rate": 1}, "several": [{"rate": 0}], "maybe": None})
    for values, line in (
        ({"inner": {"rate": 2}}, "trainer.inner.rate must be a number from 0 to 1, got 2"),
        ({"inner": Inner(-1)}, "trainer.inner.rate must be a number from 0 to 1, got -1"),
        ({"several": [{}, {"rate": "a"}]}, "trainer.several[1].rate must be a number from 0 to 1, got 'a'"),
        ({"maybe": 3}, "trainer.maybe must be a mapping with rate, got 3"),
        ({"several": 3}, "trainer.several must be a list of mappings with rate, got 3"),
        ({"inner": {"rat": 1}}, "trainer.inner has no option 'rat'; did you mean rate? It has rate"),
        ({"nonsense": 1}, "trainer has no option 'nonsense'; it has inner, several, maybe, count"),
    ):
        with pytest.raises(UserError) as caught:
            check_fields(Outer, values, "trainer")
        assert str(caught.value) == line


def test_keywords_of_a_function_are_its_options() -> None:
    def search(problem: object, population: Annotated[int, Ge(2)] = 8, share: Share = 0.1) -> None: ...

    assert check_keywords(search, {"share": 1}, "searcher", ("problem",)) == {"share": 1.0}
    with pytest.raises(UserError, match="searcher.population must be a whole number of at least 2, got 2.5"):
        check_keywords(search, {"population": 2.5}, "searcher", ("problem",))
    with pytest.raises(UserError, match="searcher x has no option 'problem'; it has population, share"):
        check_keywords(search, {"problem": 1}, "searcher", ("problem",), "searcher x")
