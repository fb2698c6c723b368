"""Fits the learned score to a table of trained detectors: ridge regression within data sets and bands.

The AP of network i on data set d in band b of its budget is taken as

    AP = scale_d * (level_db + sum over features of coefficient * standardised feature) + noise,

scale_d the deviation of AP within the bands of d, so that every data set counts alike; the levels are free, the
coefficients share one ridge penalty. Runs of several seeds are averaged. A network is its backbone: the kinds of
features and the shrinkage are those that predict networks best of which no run, on whatever data, took part in the fit.
All of this is repeated without each tenth of the networks, and the errors on that tenth make the intervals (conformal:
their ninth decile, counted for one network more than there are).

Everything is written with nine digits, and the order of the table's lines does not matter.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Le

from nas.errors import UserError
from nas.options import CountOrNone, Name, Positive, check_fields
from nas.scorers.agreement import spearman
from nas.scorers.formula import Array
from nas.scorers.learned import FEATURES, KINDS, Band, DataTerm, Learned, features_of, network_of
from nas.spec import Backbone, Spec, backbone_of, from_dict

Integers = npt.NDArray[np.int64]

#: The fewest networks that are fitted to.
FEWEST = 20
COVERAGE = 0.9
#: Parts of the networks that are left out in turn for the intervals.
_FOLDS = 10
#: Candidates for the shrinkage, in units of the penalty on standardised coefficients.
SHRINKAGES = tuple(float(f"{10 ** (step / 2):.4g}") for step in range(-4, 9))


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
    checked: dict[str, Any] = check_fields(Trained, values, given=("spec",))
    return Trained(spec=from_dict(row["spec"]), **checked)


@dataclass(frozen=True)
class _Cells:
    """Mean AP of every network on every data set and band, and what is known of it; one row each.

    keys: (data set, band, network); owner, group, data: numbers of the network, of the (data set, band), of the data set.
    """

    keys: list[tuple[str, float | None, str]]
    backbones: dict[str, Backbone]
    networks: list[str]
    groups: list[tuple[str, float | None]]
    sets: list[str]
    owner: Integers
    group: Integers
    data: Integers
    features: Array
    ap: Array
    runs: Integers


def _cells(rows: Iterable[Trained], fewest: int) -> _Cells:
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
    if len(networks) < fewest:
        raise UserError(
            f"{len(networks)} networks that share a data set and band with another are too few to fit a score; "
            f"train at least {fewest}"
        )
    groups = list(dict.fromkeys((data, band) for data, band, _ in keys))
    sets = list(dict.fromkeys(data for data, _ in groups))
    return _Cells(
        keys,
        backbones,
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


def fit(rows: Sequence[Trained], intervals: bool = True) -> Learned:
    """The score that predicts left-out networks best; raises UserError for fewer than FEWEST, or AP that does not vary.

    intervals: also fit again without each tenth of the networks, for intervals and `left_out`, which else are None.
    """
    found = _fit(rows, FEWEST)
    if not intervals:
        return found
    cells = _cells(rows, FEWEST)
    number = {name: place % _FOLDS for place, name in enumerate(cells.networks)}
    truth = {key: float(ap) for key, ap in zip(cells.keys, cells.ap, strict=True)}
    errors: dict[str, list[float]] = {name: [] for name in cells.sets}
    scores, aps, groups = [], [], []
    for fold in range(_FOLDS):
        try:
            part = _fit([row for row in rows if number.get(network_of(row.spec), fold) != fold], 2)
        except UserError:  # what is left does not vary
            continue
        for (data, band, name), ap in truth.items():
            if number[name] == fold and part.knows(data, band):
                spec = cells.backbones[name]
                errors[data].append(abs(ap - part.predict(spec, data, band)))
                scores.append(part.score(spec) * part.term(data).slope)
                aps.append(ap)
                groups.append(cells.groups.index((data, band)))
    terms = [replace(term, half_width=_half_width(errors[term.name])) for term in found.data]
    if groups:
        inside = (np.array(values) - _means(np.array(values), np.array(groups)) for values in (scores, aps))
        found = replace(found, left_out=_short(spearman(*inside)))
    return replace(found, data=terms)


def _fit(rows: Sequence[Trained], fewest: int) -> Learned:
    cells = _cells(rows, fewest)
    scale = _scales(cells)
    means, deviations = cells.features.mean(axis=0), (cells.features - _means(cells.features, cells.group)).std(axis=0)
    varied = np.flatnonzero(deviations > 1e-9 * np.maximum(np.abs(means), 1.0))
    standard = (cells.features - means) / np.where(deviations > 0, deviations, 1.0)
    target = cells.ap / scale[cells.data]
    chosen, shrinkage = _choice(standard, cells, target, varied)
    design, penalty = _design(standard, cells, chosen), _penalty(len(chosen), cells, shrinkage)
    solution = np.linalg.solve(design.T @ design + penalty, design.T @ target)
    levels = solution[len(chosen) :].astype(np.float64)
    pooled, centre = float(scale.mean()), float(cells.ap.mean())
    coefficients = pooled * solution[: len(chosen)] / deviations[chosen]
    return Learned(
        features=tuple(FEATURES[column] for column in chosen),
        coefficients=_rounded(coefficients),
        means=_rounded(means[chosen]),
        deviations=_rounded(deviations[chosen]),
        intercept=_short(centre - float(coefficients @ means[chosen])),
        centre=_short(centre),
        shrinkage=shrinkage,
        coverage=COVERAGE,
        left_out=None,
        table=_digest_of(rows),
        runs=int(cells.runs.sum()),
        networks=tuple(cells.networks),
        data=[_term(cells, number, float(scale[number]), pooled, levels) for number in range(len(cells.sets))],
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


def _design(standard: Array, cells: _Cells, chosen: Integers) -> Array:
    """Chosen features and one column a group."""
    return np.hstack([standard[:, chosen], np.eye(len(cells.groups))[cells.group]])


def _penalty(features: int, cells: _Cells, shrinkage: float) -> Array:
    """What a shrinkage adds to the normal equations; the levels of the groups are not shrunk."""
    return np.diag([shrinkage] * features + [0.0] * len(cells.groups))


def _choice(standard: Array, cells: _Cells, target: Array, varied: Integers) -> tuple[Integers, float]:
    """The features, of some kinds out of KINDS, and the shrinkage with the least mean square error on left-out networks."""
    kinds = [varied[[FEATURES[column].startswith(f"{kind}@") for column in varied]] for kind in KINDS]
    rows = [np.flatnonzero(cells.owner == network) for network in range(len(cells.networks))]
    sizes = {len(own) for own in rows}
    blocks = [np.array([own for own in rows if len(own) == size]) for size in sorted(sizes)]
    least, best = math.inf, (varied, SHRINKAGES[-1])
    for used in (used for count in range(len(KINDS)) for used in combinations(kinds, count + 1)):
        chosen = np.concatenate(used)
        design = _design(standard, cells, chosen)
        squares, products = design.T @ design, design.T @ target
        for shrinkage in SHRINKAGES:
            inverse = np.linalg.inv(squares + _penalty(len(chosen), cells, shrinkage))
            residuals, spread = target - design @ (inverse @ products), design @ inverse
            # A fit without some rows errs on them by (I - H)^-1 times what the whole fit does, H their part of the hat matrix.
            error = 0.0
            for own in blocks:
                hat = spread[own] @ design[own].transpose(0, 2, 1)
                error += float((np.linalg.solve(np.eye(own.shape[1]) - hat, residuals[own][:, :, None]) ** 2).sum())
            if error < least:
                least, best = error, (chosen, shrinkage)
    return best


def _term(cells: _Cells, number: int, scale: float, pooled: float, levels: Array) -> DataTerm:
    name, chosen = cells.sets[number], cells.data == number
    bands = [
        Band(band, int((cells.group == group).sum()), _short(scale * float(levels[group])))
        for group, (data, band) in enumerate(cells.groups)
        if data == name
    ]
    return DataTerm(name, int(chosen.sum()), int(cells.runs[chosen].sum()), _short(scale / pooled), None, bands)


def _half_width(errors: Sequence[float]) -> float | None:
    """The error that COVERAGE of new networks do not exceed, if they and those here are exchangeable; None for too few."""
    place = math.ceil((len(errors) + 1) * COVERAGE)
    return _short(sorted(errors)[place - 1]) if place <= len(errors) else None


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
