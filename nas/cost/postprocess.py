"""What follows the network until boxes: milliseconds of an image, by how many predictions of how many classes it gives.

Non-maximum suppression looks through all pairs of box and class, sorts the candidates and compares those of a class with each
other; a detector without it has its final rows read. How many candidates a picture brings is not known beforehand: the price is
that of the most that enter, as under the low threshold by which AP is measured. It is the same for every network of a frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, log
from typing import Annotated

from annotated_types import MinLen

from nas.errors import UserError
from nas.options import Count, NotNegative, Positive, Rule, check_object, read_object
from nas.spec import ONE_TO_ONE_ROWS, STRIDES

ASCENDING = Rule("ascending", lambda numbers: list(numbers) == sorted(set(numbers)))
#: Candidates that enter NMS where AP is measured (nas.inference.evaluator).
MOST_CANDIDATES = 3000


@dataclass(frozen=True)
class Suppression:
    """Milliseconds of NMS: `ms` has a row for each number of candidates and a column for each number of classes, the smallest
    first; pairs: of looking through a million pairs of box and class, which comes beside. Between is interpolated on
    logarithms, outside the ends hold. Raises UserError for a table of another shape."""

    candidates: Annotated[tuple[Count, ...], MinLen(1), ASCENDING]
    classes: Annotated[tuple[Count, ...], MinLen(1), ASCENDING]
    ms: tuple[tuple[Positive, ...], ...]
    pairs: NotNegative

    def __post_init__(self) -> None:
        check_object(self)
        if len(self.ms) != len(self.candidates) or {len(row) for row in self.ms} != {len(self.classes)}:
            raise UserError(
                f"postprocess: suppression.ms must have {len(self.candidates)} rows of {len(self.classes)} milliseconds, one "
                "for each number of candidates and of classes"
            )

    def of(self, boxes: int, num_classes: int, candidates: int) -> float:
        """Of so many candidates among the pairs of boxes and classes."""
        row, down = _place(self.candidates, candidates)
        column, across = _place(self.classes, num_classes)
        corners = ((row, column, (1 - down) * (1 - across)), (row, column + 1, (1 - down) * across),
                   (row + 1, column, down * (1 - across)), (row + 1, column + 1, down * across))  # fmt: skip
        power = sum(share * log(self.ms[r][c]) for r, c, share in corners if share)
        return exp(power) + self.pairs * boxes * num_classes / 1e6


def _place(numbers: Sequence[int], value: int) -> tuple[int, float]:
    """The place before a value in ascending numbers, and the share of the way to the next on a logarithmic scale."""
    value = min(max(value, numbers[0]), numbers[-1])
    before = max(bisect_right(numbers, value) - 1, 0)
    if before == len(numbers) - 1:
        return before, 0.0
    return before, log(value / numbers[before]) / log(numbers[before + 1] / numbers[before])


@dataclass(frozen=True)
class FinalRows:
    """Milliseconds of a detector without NMS: fixed, and of a million pairs of row and class."""

    fixed: NotNegative
    pairs: NotNegative


@dataclass(frozen=True)
class PostProcess:
    """A device's post-processing. points: measurements that it was not made of, on which `error_percent` is its mean error;
    how: measured, or calibrated on what others published."""

    suppression: Suppression
    final_rows: FinalRows
    points: Count
    error_percent: NotNegative
    how: str = "measured"

    def ms(self, num_classes: int, one_to_one: bool, image_size: int) -> float:
        """Of one image of a detector with predictions on strides 8, 16 and 32."""
        if one_to_one:
            return self.of_rows(min(ONE_TO_ONE_ROWS, predictions(image_size)), num_classes)
        boxes = predictions(image_size)
        return self.suppression.of(boxes, num_classes, min(MOST_CANDIDATES, boxes * num_classes))

    def of_rows(self, rows: int, num_classes: int) -> float:
        """Without NMS."""
        return self.final_rows.fixed + self.final_rows.pairs * rows * num_classes / 1e6

    def body(self) -> dict[str, object]:
        """Plain data for a table file, which `read_postprocess` reads."""
        return asdict(self)


def predictions(image_size: int) -> int:
    """Boxes that a detector with NMS gives for an image of this side."""
    return sum((image_size // stride) ** 2 for stride in STRIDES)


def read_postprocess(body: Mapping[str, object], where: str) -> PostProcess | None:
    """From the body of a table file, None where it says nothing; UserError for a part that is wrong."""
    found = body.get("postprocess")
    return None if found is None else read_object(PostProcess, found, f"{where}: postprocess")


def unknown_after(table: str) -> UserError:
    """What to say where a table does not tell what follows the network."""
    return UserError(
        f"e2e_ms is not known for latency table {table}, which does not say what follows the network: python -m nas.profile "
        "measures a table of this device that does, or limit latency_ms"
    )
