"""Fits the learned score to a table of trained detectors: ridge regression within data sets and bands.

The AP of network i on data set d in band b of its budget is taken as

    AP = scale_d * (level_db + sum over features of coefficient * standardised feature) + noise,

scale_d the deviation of AP within the bands of d, so that every data set counts alike; the levels are free, the
coefficients share one ridge penalty. Runs of several seeds are averaged. A network is its backbone: the kinds of
features and the shrinkage are those that predict networks best of which no run, on whatever data, took part in the fit.
All strides share the coefficient of a kind, unless coefficients of their own predict better by more than a standard
error: a few dozen networks do not determine five times as many numbers.
All of this is repeated without each tenth of the networks, and the errors on that tenth make the intervals (conformal:
their ninth decile, counted for one network more than there are).

Everything is written with nine digits, and the order of the table's lines does not matter.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt

from nas.errors import UserError
from nas.scorers.agreement import spearman
from nas.scorers.formula import Array
from nas.scorers.learned import FEATURES, KINDS, Band, DataTerm, Learned, features_of, network_of
from nas.scorers.trained import Trained
from nas.spec import Backbone, backbone_of

Integers = npt.NDArray[np.int64]

#: The fewest networks that are fitted to.
FEWEST = 20
COVERAGE = 0.9
#: Parts of the networks that are left out in turn for the intervals.
_FOLDS = 10
#: Candidates for the shrinkage, in units of the penalty on standardised coefficients.
SHRINKAGES = tuple(float(f"{10 ** (step / 2):.4g}") for step in range(-4, 9))


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
    target = cells.ap / scale[cells.data]
    found = _choice(cells, target)
    standard, spread = _columns(cells, found.groups)
    design, penalty = _design(standard, cells), _penalty(len(found.groups), cells, found.shrinkage)
    solution = np.linalg.solve(design.T @ design + penalty, design.T @ target)
    levels = solution[len(found.groups) :].astype(np.float64)
    pooled, centre = float(scale.mean()), float(cells.ap.mean())
    shared = pooled * solution[: len(found.groups)] / spread
    chosen = np.array([column for group in found.groups for column in group], int)
    coefficients = np.array([value for value, group in zip(shared, found.groups, strict=True) for _ in group])
    means, deviations = cells.features.mean(axis=0), _deviations(cells, cells.features)
    return Learned(
        features=tuple(FEATURES[column] for column in chosen),
        coefficients=_rounded(coefficients),
        means=_rounded(means[chosen]),
        deviations=_rounded(deviations[chosen]),
        intercept=_short(centre - float(coefficients @ means[chosen])),
        centre=_short(centre),
        shrinkage=found.shrinkage,
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


@dataclass(frozen=True)
class _Choice:
    """Groups of features that share a coefficient, the shrinkage, and the square errors of left-out networks."""

    groups: list[Integers]
    shrinkage: float
    errors: Array


def _choice(cells: _Cells, target: Array) -> _Choice:
    """What errs least on left-out networks: one coefficient for a kind of features, or by a clear lead one for each stride."""
    own = np.arange(len(FEATURES)).reshape(len(KINDS), -1)
    shared = _least(cells, target, [[columns] for columns in own])
    single = _least(cells, target, [list(columns[:, None]) for columns in own])
    lead = shared.errors - single.errors
    return single if lead.mean() > lead.std(ddof=1) / math.sqrt(len(lead)) else shared


def _least(cells: _Cells, target: Array, kinds: Sequence[Sequence[Integers]]) -> _Choice:
    """The kinds, each some groups of features, and the shrinkage with the least mean square error on left-out networks."""
    varied = [[group for group in kind if _varies(cells, group)] for kind in kinds]
    rows = [np.flatnonzero(cells.owner == network) for network in range(len(cells.networks))]
    sizes = {len(own) for own in rows}
    blocks = [np.array([own for own in rows if len(own) == size]) for size in sorted(sizes)]
    best = _Choice([], SHRINKAGES[-1], np.full(len(rows), math.inf))
    for used in (used for count in range(len(kinds)) for used in combinations(varied, count + 1)):
        groups = [group for kind in used for group in kind]
        design = _design(_columns(cells, groups)[0], cells)
        squares, products = design.T @ design, design.T @ target
        for shrinkage in SHRINKAGES:
            inverse = np.linalg.inv(squares + _penalty(len(groups), cells, shrinkage))
            residuals, spread = target - design @ (inverse @ products), design @ inverse
            # A fit without some rows errs on them by (I - H)^-1 times what the whole fit does, H their part of the hat matrix.
            errors = np.zeros(len(rows))
            for own in blocks:
                hat = spread[own] @ design[own].transpose(0, 2, 1)
                without = np.linalg.solve(np.eye(own.shape[1]) - hat, residuals[own][:, :, None])
                errors[cells.owner[own[:, 0]]] = (without**2).sum(axis=(1, 2))
            if errors.sum() < best.errors.sum():
                best = _Choice(groups, shrinkage, errors)
    return best


def _columns(cells: _Cells, groups: Sequence[Integers]) -> tuple[Array, Array]:
    """The sum of each group of features, standardised within bands, and the deviations by which it was divided."""
    nothing = np.empty((len(cells.keys), 0))  # kinds that do not vary leave no group
    sums = np.column_stack([nothing, *(cells.features[:, group].sum(axis=1) for group in groups)])
    spread = _deviations(cells, sums)
    return (sums - sums.mean(axis=0)) / spread, spread


def _deviations(cells: _Cells, values: Array) -> Array:
    """Of every column, within bands."""
    found: Array = (values - _means(values, cells.group)).std(axis=0)
    return found


def _varies(cells: _Cells, group: Integers) -> bool:
    values = cells.features[:, group].sum(axis=1, keepdims=True)
    return bool(_deviations(cells, values)[0] > 1e-9 * max(abs(float(values.mean())), 1.0))


def _design(standard: Array, cells: _Cells) -> Array:
    """Columns of features and one a group of data set and band."""
    return np.hstack([standard, np.eye(len(cells.groups))[cells.group]])


def _penalty(features: int, cells: _Cells, shrinkage: float) -> Array:
    """What a shrinkage adds to the normal equations; the levels of the groups are not shrunk."""
    return np.diag([shrinkage] * features + [0.0] * len(cells.groups))


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
