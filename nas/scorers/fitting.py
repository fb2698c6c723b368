"""Fits the learned score to a table of trained detectors: ridge regression within data sets and bands.

The AP of network i on data set d in band b of its budget is taken as

    AP = scale_d * (level_db + sum over features of coefficient * standardised feature) + noise,

scale_d the deviation of AP within the bands of d, so that every data set counts alike; the levels are free, the
coefficients share one ridge penalty. Runs of several seeds are averaged. A network is its backbone: the shrinkage is
the one that predicts networks best of which no run, on whatever data, took part in the fit, and the residuals of these
predictions make the intervals (conformal: the ninth decile, counted for one network more than there are).

Everything is written with nine digits, and the order of the table's lines does not matter.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le

from nas.errors import UserError
from nas.options import CountOrNone, Name, Positive, check_fields
from nas.scorers.agreement import spearman
from nas.scorers.formula import Array
from nas.scorers.learned import FEATURES, Band, DataTerm, Learned, features_of, network_of
from nas.spec import Backbone, Spec, backbone_of, from_dict

Integers = npt.NDArray[np.int64]

#: The fewest networks that are fitted to.
FEWEST = 20
COVERAGE = 0.9
#: Candidates for the shrinkage, in units of the penalty on standardised coefficients.
SHRINKAGES = tuple(float(f"{10 ** (step / 4):.4g}") for step in range(-8, 17))


@dataclass(frozen=True)
class Trained:
    """One trained network: its AP in [0, 1] on a data set, the band of its budget where the table has any, and its seed."""

    spec: Spec
    ap: Annotated[float, Ge(0), Le(1)]
    data: Name
    band_ms: Positive | None = None
    seed: CountOrNone = 0


def read_table(path: Path) -> list[Trained]:
    """The rows of a table of JSON lines, plain or packed: `spec`, `test_ap` or `ap`, `data`, and `band_ms`, `seed`.

    Other fields are passed over. Raises UserError that names the line for whatever cannot be used.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        lines = content.decode().splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"table={path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_row(json.loads(line)))
        except (ValueError, RecursionError, UserError) as error:
            raise UserError(f"table={path}, line {number}: {str(error).splitlines()[0]}") from None
    return rows


def _row(row: Any) -> Trained:
    if not isinstance(row, dict):
        raise UserError("not a mapping")
    ap = "test_ap" if "test_ap" in row else "ap"
    for name in ("spec", ap, "data"):
        if name not in row:
            raise UserError(f"there is no {'test_ap or ap' if name == 'ap' else name}")
    values = {name: row[name] for name in ("data", "band_ms", "seed") if name in row} | {"ap": row[ap]}
    return Trained(spec=from_dict(row["spec"]), **check_fields(Trained, values, given=("spec",)))


@dataclass(frozen=True)
class _Cells:
    """Mean AP of every network on every data set and band, and what is known of it; one row each.

    owner, group, data: numbers of the network, of the (data set, band), of the data set.
    """

    networks: list[str]
    groups: list[tuple[str, float | None]]
    sets: list[str]
    owner: Integers
    group: Integers
    data: Integers
    features: Array
    ap: Array
    runs: Integers


def _cells(rows: Iterable[Trained]) -> _Cells:
    """Sorted, so that no order of rows changes a result; a group of one network tells nothing and is left out."""
    aps: dict[tuple[str, float | None, str], list[tuple[int, float]]] = {}
    backbones: dict[str, Backbone] = {}
    for row in rows:
        name = network_of(row.spec)
        backbones[name] = backbone_of(row.spec)
        aps.setdefault((row.data, row.band_ms, name), []).append((row.seed, row.ap))
    size: dict[tuple[str, float | None], int] = {}
    for data, band, _ in aps:
        size[data, band] = size.get((data, band), 0) + 1
    keys = [key for key in aps if size[key[0], key[1]] > 1]
    keys.sort(key=lambda key: (key[0], -1.0 if key[1] is None else key[1], key[2]))
    networks = sorted({name for _, _, name in keys})
    if len(networks) < FEWEST:
        raise UserError(
            f"{len(networks)} networks that share a data set and band with another are too few to fit a score; "
            f"train at least {FEWEST}"
        )
    groups = list(dict.fromkeys((data, band) for data, band, _ in keys))
    sets = list(dict.fromkeys(data for data, _ in groups))
    return _Cells(
        networks,
        groups,
        sets,
        np.array([networks.index(name) for _, _, name in keys]),
        np.array([groups.index((data, band)) for data, band, _ in keys]),
        np.array([sets.index(data) for data, _, _ in keys]),
        np.array([features_of(backbones[name]) for _, _, name in keys]),
        np.array([math.fsum(ap for _, ap in sorted(aps[key])) / len(aps[key]) for key in keys]),
        np.array([len(aps[key]) for key in keys]),
    )


def fit(rows: Sequence[Trained]) -> Learned:
    """The score that predicts left-out networks best; raises UserError for fewer than FEWEST, or AP that does not vary."""
    cells = _cells(rows)
    scale = _scales(cells)
    inside = cells.features - _means(cells.features, cells.group)
    deviations = inside.std(axis=0)
    means = cells.features.mean(axis=0)
    kept = deviations > 1e-9 * np.maximum(np.abs(means), 1.0)
    standard = (cells.features[:, kept] - means[kept]) / deviations[kept]
    target = cells.ap / scale[cells.data]
    design = np.hstack([standard, np.eye(len(cells.groups))[cells.group]])
    count = standard.shape[1]
    left_out = _left_out(design, target, cells.owner, count)
    shrinkage = min(SHRINKAGES, key=lambda value: (float(np.mean(left_out[value][0] ** 2)), -value))
    matrix = design.T @ design + _shrunk(count, design.shape[1], shrinkage)
    solution = np.linalg.solve(matrix, design.T @ target).astype(np.float64)
    slopes, levels = solution[:count], solution[count:]
    pooled, centre = float(scale.mean()), float(cells.ap.mean())
    coefficients = np.zeros(len(FEATURES))
    coefficients[kept] = pooled * slopes / deviations[kept]
    residuals, scores = left_out[shrinkage]
    return Learned(
        features=FEATURES,
        coefficients=_rounded(coefficients),
        means=_rounded(means),
        deviations=_rounded(deviations),
        intercept=_short(centre - float(coefficients @ means)),
        centre=_short(centre),
        shrinkage=shrinkage,
        coverage=COVERAGE,
        left_out=_short(_agreement(cells, target, scores)),
        table=_digest_of(rows),
        runs=int(cells.runs.sum()),
        networks=tuple(cells.networks),
        data=[
            _term(cells, number, name, float(scale[number]), pooled, levels, residuals)
            for number, name in enumerate(cells.sets)
        ],
        versions={"numpy": np.__version__},
    )


def _scales(cells: _Cells) -> Array:
    """Deviation of AP within the bands of each data set."""
    inside = cells.ap - _means(cells.ap, cells.group)
    result = np.array([inside[cells.data == number].std() for number in range(len(cells.sets))])
    for name, scale in zip(cells.sets, result, strict=True):
        if not scale > 1e-9:
            raise UserError(f"networks do not differ in AP on {name}: there is nothing to fit")
    return result


def _shrunk(features: int, columns: int, shrinkage: float) -> Array:
    """What a shrinkage adds to the normal equations; the levels behind the features are not shrunk."""
    return np.diag(np.where(np.arange(columns) < features, shrinkage, 0.0))


def _left_out(design: Array, target: Array, owner: Integers, features: int) -> dict[float, tuple[Array, Array]]:
    """By shrinkage, residuals (target - prediction) and scores (without level) of each row, from a fit without its network."""
    squares = np.zeros((owner.max() + 1, *(design.shape[1],) * 2))
    np.add.at(squares, owner, design[:, :, None] * design[:, None, :])
    products = np.zeros(squares.shape[:2])
    np.add.at(products, owner, design * target[:, None])
    squares, products = squares.sum(axis=0) - squares, products.sum(axis=0) - products
    result = {}
    for shrinkage in SHRINKAGES:
        matrices = squares + _shrunk(features, design.shape[1], shrinkage)
        terms = design * np.linalg.solve(matrices, products[:, :, None])[owner, :, 0]
        result[shrinkage] = (target - terms.sum(axis=1), terms[:, :features].sum(axis=1))
    return result


def _term(
    cells: _Cells, number: int, name: str, scale: float, pooled: float, levels: Array, residuals: Array
) -> DataTerm:
    chosen = cells.data == number
    errors = np.sort(np.abs(residuals[chosen])) * scale
    place = math.ceil((len(errors) + 1) * COVERAGE)
    bands = [
        Band(band, int((cells.group == group).sum()), _short(scale * float(levels[group])))
        for group, (data, band) in enumerate(cells.groups)
        if data == name
    ]
    half_width = _short(float(errors[place - 1])) if place <= len(errors) else None
    return DataTerm(name, int(chosen.sum()), int(cells.runs[chosen].sum()), _short(scale / pooled), half_width, bands)


def _agreement(cells: _Cells, truth: Array, predicted: Array) -> float:
    """Spearman's rho over all rows, both sides centred within data sets and bands."""
    return spearman(predicted - _means(predicted, cells.group), truth - _means(truth, cells.group))


def _means(values: Array, group: Integers) -> Array:
    """Every row's mean of its group."""
    count = np.bincount(group)
    sums = np.zeros((len(count), *values.shape[1:]))
    np.add.at(sums, group, values)
    result: Array = (sums / count.reshape(-1, *(1,) * (values.ndim - 1)))[group]
    return result


def _digest_of(rows: Sequence[Trained]) -> str:
    """Sixteen hex digits of what was fitted to."""
    lines = sorted(f"{network_of(row.spec)} {row.data} {row.band_ms} {row.seed} {row.ap!r}" for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _short(value: float) -> float:
    return float(f"{value:.9g}")


def _rounded(values: Array) -> tuple[float, ...]:
    return tuple(_short(float(value)) for value in values)
