"""What follows the network until boxes: milliseconds of an image, by how many predictions of how many classes it gives.

Non-maximum suppression looks through all pairs of box and class, sorts the candidates and compares those of a class with each
other; a detector without it has its final rows read. How many candidates a picture brings is not known beforehand: the price is
that of the most that enter, as under the low threshold by which AP is measured. It is the same for every network of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from nas.errors import UserError
from nas.options import Count, NotNegative, read_object
from nas.spec import ONE_TO_ONE_ROWS, STRIDES

#: Candidates that enter NMS where AP is measured (nas.inference.evaluator).
MOST_CANDIDATES = 3000


@dataclass(frozen=True)
class Suppression:
    """Milliseconds: fixed, of a million pairs of box and class, of a thousand candidates, of a million comparisons."""

    fixed: NotNegative
    pairs: NotNegative
    candidates: NotNegative
    comparisons: NotNegative


@dataclass(frozen=True)
class FinalRows:
    """Milliseconds of a detector without NMS: fixed, and of a million pairs of row and class."""

    fixed: NotNegative
    pairs: NotNegative


@dataclass(frozen=True)
class PostProcess:
    """A device's post-processing, fitted to `points` measurements with a mean error of `error_percent`; `how`: measured, or
    calibrated on what others published."""

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
        return self.of_candidates(boxes, num_classes, min(MOST_CANDIDATES, boxes * num_classes))

    def of_candidates(self, boxes: int, num_classes: int, candidates: int) -> float:
        """With NMS."""
        fixed, pairs, sorting, comparing = suppression_work(boxes, num_classes, candidates)
        prices = self.suppression
        return (
            prices.fixed * fixed + prices.pairs * pairs + prices.candidates * sorting + prices.comparisons * comparing
        )

    def of_rows(self, rows: int, num_classes: int) -> float:
        """Without NMS."""
        return self.final_rows.fixed + self.final_rows.pairs * rows * num_classes / 1e6

    def body(self) -> dict[str, object]:
        """Plain data for a table file, which `read_postprocess` reads."""
        return asdict(self)


def predictions(image_size: int) -> int:
    """Boxes that a detector with NMS gives for an image of this side."""
    return sum((image_size // stride) ** 2 for stride in STRIDES)


def suppression_work(boxes: int, num_classes: int, candidates: int) -> tuple[float, float, float, float]:
    """What the four parts of `Suppression` are the prices of: candidates of a class compare with each other."""
    return 1.0, boxes * num_classes / 1e6, candidates / 1e3, candidates**2 / num_classes / 1e6


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
