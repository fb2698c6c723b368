"""The learned score: the AP of trained detectors as a sum over the parts of a backbone, with coefficients read from a file.

    python -m nas.rank action=fit table=TABLE output=score.json        (nas/scorers/fitting.py)

Every term is a sum over main convolutions of the parts whose output has one stride s, or the width at its end:

    score = intercept + sum over s of  gain@s  * sum of ln fan-in / 2        (what `mae` counts)
                                     + work@s  * sum of ln MACs per pixel of the image
                                     + thin@s  * sum of 1 / width            (what `effective_rank` counts)
                                     + depth@s * their number
                                     + width@s * ln C at the end of stride s

so the array search holds it in tables over pairs of widths and the exact search proves its optimum. The size of the
image does not enter. The file also tells what the score means on each data set that it was fitted to: the AP that it
predicts there, within an interval that covers a new network with the stated frequency.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from nas.blocks.operation import main_convolutions
from nas.errors import UserError, shown
from nas.files import read_json
from nas.lowering import Operation, backbone_operations
from nas.options import Count, Name, NotNegative, Positive, Share, read_object
from nas.scorers.entropy import log_gain
from nas.scorers.formula import Array, Formula, Linear, weighted
from nas.spec import USUAL_SIDE, Backbone, Spec, backbone_of, digest

FORMAT = "maenas-learned-score/1"
#: The file that is used where none is named.
SHIPPED = Path(__file__).with_name("learned.json")
STRIDES = (2, 4, 8, 16, 32)
#: What is summed over the parts of a stride.
_SUMS = ("gain", "work", "thin", "depth")
KINDS = (*_SUMS, "width")
#: Names of all features, in the order of `features_of`.
FEATURES = tuple(f"{kind}@{stride}" for kind in KINDS for stride in STRIDES)


@dataclass(frozen=True)
class Band:
    """AP of a network of mean score in one band of a data set (band_ms is None where it has none)."""

    band_ms: Positive | None
    networks: Count
    level: float


@dataclass(frozen=True)
class DataTerm:
    """What a score says of the AP on one data set: level of the band + slope * (score - centre), within `half_width`.

    half_width is None where there were too few networks for an interval.
    """

    name: Name
    networks: Count
    runs: Count
    slope: Positive
    half_width: NotNegative | None
    bands: list[Band]


@dataclass(frozen=True)
class Learned(Formula):
    """A fitted score.

    features: names out of FEATURES, with their coefficients (AP per unit) and their means and deviations in the table;
    centre: mean AP and mean score of the table; shrinkage: of the ridge; coverage: of the intervals; left_out: Spearman's
    rho of left-out networks, bands taken out; table: digest of its rows; runs, networks: how many, and the digests of the
    backbones; versions: of what fitted it.
    """

    features: tuple[Name, ...]
    coefficients: tuple[float, ...]
    means: tuple[float, ...]
    deviations: tuple[NotNegative, ...]
    intercept: float
    centre: float
    shrinkage: Positive
    coverage: Share
    left_out: float | None
    table: Name
    runs: Count
    networks: tuple[Name, ...]
    data: list[DataTerm]
    versions: dict[str, str]

    @property
    def by_stride(self) -> bool:
        """Whether strides have coefficients of their own."""
        kinds = [name.partition("@")[0] for name in self.features]
        return len(set(zip(kinds, self.coefficients, strict=True))) > len(set(kinds))

    def amount(self, operations: Sequence[Operation], side: int) -> float:
        stride, sums = _sums(operations, side)
        known = self._known
        whole = math.fsum(known.get(f"{kind}@{stride}", 0.0) * value for kind, value in zip(_SUMS, sums, strict=True))
        return whole + self.intercept if operations[0].role == "stem" else whole

    def combine(
        self, gains: Array, channels: Array, sides: Array, depths: Array, metrics: Mapping[str, Array]
    ) -> Array:
        return gains[:, -1] + weighted(np.log(channels), self._widths)

    def linear(self) -> Linear:
        return Linear((1.0,) * len(STRIDES), self._widths)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """The text of its file: the same bytes for the same score."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"

    def interval(self, spec: Spec, data: str, band_ms: float | None = None) -> tuple[float, float, float]:
        """(lower end, prediction, upper end) of the AP of a network that was not in the table, on a data set that was.

        Raises UserError for another data set or band, or where there were too few networks for an interval.
        """
        half_width, middle = self.term(data).half_width, self.predict(spec, data, band_ms)
        if half_width is None:
            raise UserError(f"{data}: too few networks for an interval of {self.coverage:.0%}")
        return middle - half_width, middle, middle + half_width

    def predict(self, spec: Spec, data: str, band_ms: float | None = None) -> float:
        """The AP of a network on a data set; raises UserError for a data set or band that was not in the table."""
        term = self.term(data)
        band = next((band for band in term.bands if band.band_ms == band_ms), None)
        if band is None:
            known = ", ".join(str(band.band_ms) for band in term.bands)
            raise UserError(f"{data} has no band_ms={shown(band_ms)}; fitted to {known}")
        return band.level + term.slope * (self.score(spec) - self.centre)

    def knows(self, data: str, band_ms: float | None = None) -> bool:
        """Whether a data set and band were in the table."""
        return any(term.name == data and any(band.band_ms == band_ms for band in term.bands) for term in self.data)

    def term(self, data: str) -> DataTerm:
        """What is known of a data set; raises UserError for one that was not in the table."""
        for term in self.data:
            if term.name == data:
                return term
        raise UserError(f"unknown data set {shown(data)}; fitted to {', '.join(term.name for term in self.data)}")

    @cached_property
    def _known(self) -> dict[str, float]:
        return dict(zip(self.features, self.coefficients, strict=True))

    @cached_property
    def _widths(self) -> tuple[float, ...]:
        return tuple(self._known.get(f"width@{stride}", 0.0) for stride in STRIDES)


def learned(spec: Spec, file: Path | None = None) -> float:
    """Predicted AP of a backbone, or of a detector's backbone, over the data sets of the table that was fitted.

    file: of `python -m nas.rank action=fit`; the shipped one unless told. Raises UserError without such a file.
    """
    return read_learned(file).score(spec)


def read_learned(file: Path | None = None) -> Learned:
    """The score of a file, the shipped one unless told; raises UserError for one that is missing or damaged."""
    path = SHIPPED if file is None else Path(file)
    if not path.is_file():
        what = "no learned score is shipped" if file is None else f"there is no learned score in {path}"
        raise UserError(
            f"{what}: fit one with python -m nas.rank action=fit table=TABLE output=FILE, and give its file"
        )
    stat = path.stat()
    return _read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _read(path: Path, changed: int, size: int) -> Learned:
    """A file as it stood at a time."""
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not a learned score ({FORMAT})")
    values = {key: value for key, value in content.items() if key != "format"}
    missing = [item.name for item in fields(Learned) if item.name not in values]
    if missing:
        raise UserError(f"{path} lacks {missing[0]}")
    try:
        found = read_object(Learned, values)
    except (UserError, TypeError) as error:
        raise UserError(f"{path}: {error}") from None
    if {len(found.features)} != {len(found.coefficients), len(found.means), len(found.deviations)}:
        raise UserError(f"{path}: features, coefficients, means and deviations differ in length")
    strange = [name for name in found.features if name not in FEATURES or found.features.count(name) > 1]
    if strange:
        raise UserError(f"{path}: feature {shown(strange[0])} is unknown or named twice; known: {', '.join(FEATURES)}")
    return found


@lru_cache(maxsize=1 << 14)
def network_of(spec: Spec) -> str:
    """Digest of the backbone: all that a learned score sees of a network."""
    return digest(backbone_of(spec))


@lru_cache(maxsize=1 << 14)
def features_of(backbone: Backbone) -> tuple[float, ...]:
    """The values of FEATURES; raises UserError for a backbone whose parts do not have the strides 2 to 32."""
    levels = (0, *backbone.levels)
    if backbone.stem.stride != STRIDES[0] or levels[-1] != len(STRIDES) - 1:
        raise _strides_differ()
    found = dict.fromkeys(FEATURES, 0.0)
    widths = (backbone.stem.out, *(block.out for block in backbone.blocks))
    for level, width, operations in zip(levels, widths, backbone_operations(backbone, USUAL_SIDE), strict=True):
        stride, sums = _sums(operations, USUAL_SIDE)
        for kind, value in zip(_SUMS, sums, strict=True):
            found[f"{kind}@{stride}"] += value
        found[f"width@{STRIDES[level]}"] = math.log(width)  # the last of a level stays
    return tuple(found.values())


def _sums(operations: Sequence[Operation], side: int) -> tuple[int, tuple[float, float, float, float]]:
    """Stride of a part's output, and its sums; a part without convolutions has none."""
    main = main_convolutions(operations)
    if not main:
        return STRIDES[0], (0.0, 0.0, 0.0, 0.0)
    last = main[-1]
    stride = 1 << (-(-side // last.height) - 1).bit_length()  # maps are rounded up, strides are powers of two
    if stride not in STRIDES:
        raise _strides_differ()
    pixels = last.height * last.width * stride**2
    work = math.fsum(math.log(op.macs / pixels) for op in main)
    thin = math.fsum(1 / op.out_channels for op in main)
    return stride, (log_gain(main), work, thin, float(len(main)))


def _strides_differ() -> UserError:
    return UserError(f"a learned score is of backbones with maps of strides {', '.join(map(str, STRIDES))}")
