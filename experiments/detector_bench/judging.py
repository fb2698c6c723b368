"""Judges the learned score on what it has not seen, beside its rivals and the ceiling that seed noise allows.

Every network is scored by fits that have not seen it (`networks`, ten folds by backbone), its data set (`data`; its
runs on the others they have) or its search space (`spaces`), and ranked among the networks of its band. `within` is the
mean of Spearman's rho over bands of at least eight networks, `pooled` is rho over all of them after centring scores and
APs in each band; on the pool of all data sets APs are divided by their deviation on each. Intervals (95 %) are of pooled
rho, and of its paired lead over effective_rank, over resampled networks. The truth is the test AP of each network's
first seed, of which the ceiling speaks too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.detector_bench.proxies import PROXIES
from experiments.detector_bench.report import first_seeds, noise_of, within
from experiments.detector_bench.table import Run
from nas.errors import UserError
from nas.files import write_atomic
from nas.scorers.agreement import spearman
from nas.scorers.fitting import fit
from nas.scorers.learned import Learned, network_of
from nas.scorers.trained import Trained

Array = NDArray[np.float64]

#: Counting and the scores that are beside the learned one; all that a run holds, and the proxies where they are measured.
RIVALS = ("params", "macs", "layers", "mae", "level_balance", "effective_rank")
LEARNED, BEST_RIVAL = "learned", "effective_rank"
POOL = "all data sets"


@dataclass(frozen=True)
class Figure:
    """How a score orders networks: see the module. share: pooled rho over the ceiling; None is not known."""

    within: float | None
    pooled: float
    low: float
    high: float
    lead: float
    lead_low: float
    lead_high: float
    share: float | None


@dataclass(frozen=True)
class Table:
    """Figures of all scores on one data set, or on the pool."""

    networks: int
    ceiling: float | None
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Coverage:
    """Intervals counted on networks that the fitted file has not seen; p: two-sided binomial test."""

    rows: int
    networks: int
    inside: int
    expected: float
    p: float


def trained(runs: Sequence[Run]) -> list[Trained]:
    """Runs as rows of a fit."""
    return [Trained(run.spec, run.test_ap, run.data, run.band_ms, run.seed) for run in runs]


def folds_of(runs: Sequence[Run], count: int) -> dict[str, str]:
    """Fold of each backbone, the same for the same backbones."""
    backbones = sorted({network_of(run.spec) for run in runs})
    order = np.random.default_rng(0).permutation(len(backbones))
    return {backbone: str(place % count) for backbone, place in zip(backbones, order.tolist(), strict=True)}


def left_out_scores(runs: Sequence[Run], rows: Sequence[Run], part: Callable[[Run], str]) -> tuple[Array, list[str]]:
    """Learned scores of `rows`, each from a fit without the runs of its part; nan, and a note, where there can be none."""
    scores, notes = np.full(len(rows), np.nan), []
    for name in sorted({part(row) for row in rows}):
        try:
            found = fit(trained([run for run in runs if part(run) != name]), intervals=False)
        except UserError as error:
            notes.append(f"without {name}: {error}")
            continue
        for place, row in enumerate(rows):
            if part(row) == name:
                scores[place] = found.score(row.spec)
    return scores, notes


def columns_of(rows: Sequence[Run], proxies: Mapping[str, Mapping[str, float]]) -> dict[str, Array]:
    """Values of the rivals; a proxy takes part once it is known of every network."""
    columns = {name: np.array([(row.scores | row.counts)[name] for row in rows]) for name in RIVALS}
    for name in PROXIES:
        values = [proxies.get(row.digest, {}).get(name) for row in rows]
        if all(value is not None for value in values):
            columns[name] = np.array(values, dtype=float)
    return columns


def centred(values: Array, groups: NDArray[np.intp]) -> Array:
    """Values less the mean of their group."""
    return values - (np.bincount(groups, values) / np.maximum(np.bincount(groups), 1))[groups]


def judge(rows: Sequence[Run], columns: Mapping[str, Array], ceilings: Mapping[str, float], resamples: int) -> Table:
    """Figures of the scores on these networks, each on one or several data sets."""
    labels = [(row.data, row.band_ms) for row in rows]
    groups = np.unique([f"{data} {band:g}" for data, band in labels], return_inverse=True)[1]
    aps, sets = np.array([row.test_ap for row in rows]), np.array([row.data for row in rows])
    deviation = {data: float(centred(aps, groups)[sets == data].std()) or 1.0 for data in np.unique(sets)}
    aps = aps / np.array([deviation[data] for data in sets])
    networks, owner = np.unique([network_of(row.spec) for row in rows], return_inverse=True)
    members = [np.flatnonzero(owner == number) for number in range(len(networks))]

    def pooled(chosen: NDArray[np.intp]) -> dict[str, float]:
        group = groups[chosen]
        truth = centred(aps[chosen], group)
        return {name: spearman(centred(values[chosen], group), truth) for name, values in columns.items()}

    value, rng = pooled(np.arange(len(rows))), np.random.default_rng(0)
    samples: dict[str, list[float]] = {name: [] for name in columns}
    for _ in range(resamples):
        chosen = np.concatenate([members[number] for number in rng.integers(len(networks), size=len(networks))])
        for name, rho in pooled(chosen).items():
            samples[name].append(rho)
    known = [ceilings[data] ** 2 for data in sets if data in ceilings]
    ceiling = float(np.sqrt(np.mean(known))) if len(known) == len(rows) else None
    figures = {}
    for name, values in columns.items():
        ends = np.quantile(samples[name], (0.025, 0.975))
        lead_ends = np.quantile(np.subtract(samples[name], samples[BEST_RIVAL]), (0.025, 0.975))
        rho, share = value[name], value[name] / ceiling if ceiling else None
        numbers = [within(values, aps, groups), rho, *ends, rho - value[BEST_RIVAL], *lead_ends, share]
        figures[name] = Figure(*(None if number is None else round(float(number), 4) for number in numbers))  # type: ignore[arg-type]
    return Table(len(networks), None if ceiling is None else round(ceiling, 4), figures)


def covered(fitted: Learned, rows: Sequence[Run]) -> Coverage | None:
    """How many APs of networks that the file has not seen lie in its intervals; None if there are none."""
    from scipy.stats import binomtest

    seen, inside, networks = set(fitted.networks), 0, []
    for row in rows:
        if network_of(row.spec) in seen:
            continue
        try:
            low, _, high = fitted.interval(row.spec, row.data, row.band_ms)
        except UserError:  # a data set or band that the file does not know
            continue
        networks.append(row.digest)
        inside += low <= row.test_ap <= high
    if not networks:
        return None
    p = float(binomtest(inside, len(networks), fitted.coverage).pvalue)
    return Coverage(len(networks), len(set(networks)), inside, fitted.coverage, round(p, 4))


def write_judgement(
    runs: Sequence[Run],
    folder: Path,
    proxies: Mapping[str, Mapping[str, float]] | None = None,
    fitted: Learned | None = None,
    folds: int = 10,
    resamples: int = 1000,
) -> str:
    """judged.md and judged.json in `folder`; the text is returned. UserError if there is no run yet."""
    if not runs:
        raise UserError("the bench holds no run yet: python -m experiments.detector_bench train")
    if folds < 2 or resamples < 1:
        raise UserError(f"judging takes at least 2 folds and 1 resample, got folds={folds} resamples={resamples}")
    sets = sorted({run.data for run in runs})
    rows = [row for data in sets for row in first_seeds([run for run in runs if run.data == data])]
    ceilings = {}
    for data in sets:
        try:
            ceilings[data] = noise_of([run for run in runs if run.data == data]).ceiling
        except UserError:
            continue
    rivals, fold = columns_of(rows, proxies or {}), folds_of(runs, folds)
    parts: dict[str, Callable[[Run], str]] = {
        "networks": lambda run: fold[network_of(run.spec)],
        "data": lambda run: run.data,
        "spaces": lambda run: run.space,
    }
    lines, record = ["# The learned score on what it has not seen", ""], {}
    for what, part in parts.items():
        scores, notes = left_out_scores(runs, rows, part)
        tables = {}
        for data in (*sets, POOL) if len(sets) > 1 else sets:
            chosen = np.array([data in (POOL, row.data) for row in rows]) & ~np.isnan(scores)
            if chosen.sum() > 2:
                kept = {name: values[chosen] for name, values in {LEARNED: scores, **rivals}.items()}
                tables[data] = judge(
                    [row for row, keep in zip(rows, chosen, strict=True) if keep], kept, ceilings, resamples
                )
        record[what] = {"notes": notes, "tables": {data: asdict(table) for data, table in tables.items()}}
        lines += [f"## Left out: {what}", "", *(f"Not known {note}." for note in notes), *([""] if notes else [])]
        for data, table in tables.items():
            lines += shown_table(data, table)
        if not tables:
            lines += ["Too few networks for any figure.", ""]
    coverage = covered(fitted, rows) if fitted is not None else None
    lines += ["## Intervals on networks trained after the fit", "", told_coverage(fitted, coverage)]
    text = "\n".join(lines) + "\n"
    found: dict[str, Any] = {"runs": len(runs), "left_out": record, "coverage": asdict(coverage) if coverage else None}
    write_atomic(folder / "judged.json", json.dumps(found, indent=1) + "\n")
    write_atomic(folder / "judged.md", text)
    return text


def shown_table(data: str, table: Table) -> list[str]:
    """A table of figures in Markdown, the best pooled rho first."""
    ceiling = "the ceiling of seed noise is not known yet" if table.ceiling is None else f"ceiling {table.ceiling:.2f}"
    lines = [
        f"### {data}: {table.networks} networks, {ceiling}",
        "",
        f"| score | within bands | pooled [95 %] | of the ceiling | lead over {BEST_RIVAL} [95 %] |",
        "|---|---|---|---|---|",
    ]
    for name, figure in sorted(table.figures.items(), key=lambda item: -item[1].pooled):
        mean = "-" if figure.within is None else f"{figure.within:+.2f}"
        share = "-" if figure.share is None else f"{figure.share:.2f}"
        lead = "" if name == BEST_RIVAL else f"{figure.lead:+.2f} [{figure.lead_low:+.2f}, {figure.lead_high:+.2f}]"
        rho = f"{figure.pooled:+.2f} [{figure.low:+.2f}, {figure.high:+.2f}]"
        lines.append(f"| {name} | {mean} | {rho} | {share} | {lead} |")
    return [*lines, ""]


def told_coverage(fitted: Learned | None, coverage: Coverage | None) -> str:
    """What is known of the intervals, in a sentence."""
    if fitted is None:
        return "There is no fitted score yet: python -m nas.rank action=fit, and score=FILE here."
    if coverage is None:
        return f"No network was trained after the fit to {len(fitted.networks)} networks (table {fitted.table})."
    verdict = "not rejected" if coverage.p >= 0.05 else "rejected"
    few = "" if coverage.networks >= 30 else "; fewer than 30 networks say little"
    return (
        f"{coverage.inside} of {coverage.rows} APs of {coverage.networks} new networks lie inside, expected "
        f"{coverage.expected:.0%}: {verdict} at 5 % (binomial p = {coverage.p:.3f}){few}."
    )
