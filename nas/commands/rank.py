"""Ranks networks by training-free scorers and judges the scorers by trained accuracy."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le, MinLen

from nas.config import compose_config
from nas.errors import UserError
from nas.files import is_spec_file, load_spec, read_text, read_yaml, write_atomic
from nas.options import CountOrNone, Name, OneOf, Seed, Threads, check_object
from nas.report.scorer_table import COUNTS, RankTable, Row, write_rank_report
from nas.scorers import ENSEMBLES, find_scorer, score_spec
from nas.scorers.agreement import Spread, agreement, log_rank, spread, vote
from nas.scorers.base import OWN
from nas.scorers.measuring import (
    Pass,
    Subject,
    benchmark_rows,
    benchmark_subjects,
    passes_for,
    spec_subject,
)
from nas.scorers.score_log import ScoreLog, read_scores
from nas.spec import image_side
from search_spaces.published import is_published, load_published

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class RankSettings:
    """What `python -m nas.rank` is told: give `networks` or `benchmark`; or, with action=fit, `table` and `output` alone.

    networks: a published name, a spec file, or a YAML list of them (entries may carry accuracies: {model: X, ap: .4});
    benchmark: nasbench201 or nasbench_macro, from the tables in the folder `tables`;
    scorers: any of nas.scorers, and the ensembles aznas and vote; counts are always added;
    sample: networks of the benchmark, in a seeded order (0: all); seeds: repeats of every network; spread_networks: of
    the first so many networks spread_seeds repeats; batch, inputs (gaussian, or a folder of pictures), image_size (0:
    the network's own): what scorers see;
    published: a CSV of published correlations to print beside ours; folder: where results go, and go on after an interruption.
    table, output: trained detectors as JSON lines, and the file of the learned score that action=fit makes of them.
    """

    action: Annotated[str, OneOf("rank", "fit")] = "rank"
    networks: Name | None = None
    benchmark: Annotated[str, OneOf("nasbench201", "nasbench_macro")] | None = None
    tables: Name | None = None
    scorers: Annotated[tuple[Name, ...], MinLen(1)] = ("synflow", "naswot", "zico", "meco", "aznas")
    sample: CountOrNone = 0
    seeds: Annotated[int, Ge(1), Le(1_000_000)] = 1
    spread_networks: CountOrNone = 0
    spread_seeds: Annotated[int, Ge(0), Le(1_000_000)] = 5
    batch: Annotated[int, Ge(1), Le(65_536)] = 16
    inputs: Name = "gaussian"
    image_size: Annotated[int, Ge(0), Le(8192)] = 0
    seed: Seed = 0
    threads: Threads = 1
    resamples: Annotated[int, Ge(0), Le(1_000_000)] = 500
    published: Path | None = None
    folder: Path = Path("outputs/rank")
    progress: bool = True
    table: Path | None = None
    output: Path | None = None


def run_ranking(settings: RankSettings) -> str:
    """Score, judge, and write scores.jsonl, scores.csv, agreement.csv, report.md and PNGs into `folder`; or fit.

    Returns the report's text. Raises UserError for settings that contradict each other, before anything is computed.
    """
    _check(settings)
    if settings.action == "fit":
        return _fit(settings)
    analytic, passes = _plan(settings.scorers)
    folder = Path(settings.folder)
    count = _count(settings)
    if passes:
        _measure(settings, passes, folder / "scores.jsonl", count)
    table = _collect(settings, analytic, passes, folder / "scores.jsonl", count)
    return write_rank_report(table, folder)


def ranked(networks: str | Path, folder: str | Path = "outputs/rank", **options: object) -> str:
    """Training-free scores of networks, as `python -m nas.rank`: the report as Markdown; files are left in `folder`.

    networks: a name, a spec file, or a YAML list of them; options: the settings of that command (scorers, seeds ...).
    """
    given = {"networks": str(networks), "folder": str(folder), **options}
    return run_ranking(compose_config("rank", RankSettings, given))


def _check(settings: RankSettings) -> None:
    check_object(settings)
    if settings.action == "fit":
        if settings.table is None or settings.output is None:
            raise UserError(
                "action=fit needs table=TABLE of trained detectors (JSON lines) and output=FILE for the score"
            )
        return
    if settings.table is not None or settings.output is not None:
        raise UserError("table= and output= belong to action=fit")
    if (settings.networks is None) == (settings.benchmark is None):
        raise UserError("give networks=NAME_OR_FILE or benchmark=nasbench201|nasbench_macro tables=FOLDER")
    if settings.benchmark is not None and settings.tables is None:
        raise UserError("benchmark= needs tables=FOLDER with the benchmark's table")
    if settings.inputs != "gaussian":
        from nas.scorers.probe import pictures_in

        pictures_in(Path(settings.inputs))
    _published(settings.published)


def _fit(settings: RankSettings) -> str:
    """Fit the learned score to the table and write its file; what it is, in a few lines."""
    from nas import __version__
    from nas.scorers.fitting import fit
    from nas.scorers.trained import read_table

    assert settings.table is not None and settings.output is not None
    found = fit(read_table(Path(settings.table)))
    found = replace(found, versions={"maenas": __version__, **found.versions})
    write_atomic(settings.output, found.to_json())
    kinds = ", ".join(dict.fromkeys(name.partition("@")[0] for name in found.features))
    kinds += "" if found.by_stride else ", alike at all strides"
    lines = [
        f"{len(found.networks)} networks, {found.runs} runs; terms of {kinds}, shrinkage {found.shrinkage:g}; rank "
        f"correlation with the AP of left-out networks, data sets and bands taken out: {found.left_out or 0.0:+.2f}"
    ]
    for term in found.data:
        width = "too few for an interval" if term.half_width is None else f"AP within {term.half_width:.3f}"
        lines.append(
            f"{term.name}: {term.networks} networks, {term.runs} runs; {found.coverage:.0%} of left-out {width}"
        )
    return "\n".join([*lines, f"{settings.output}: scorer=learned scorer.file={settings.output}"])


def _plan(names: Sequence[str]) -> tuple[list[str], tuple[Pass, ...]]:
    """Spec scorers by name, and the passes that answer the others."""
    chosen = {name: find_scorer(name) for name in names if name not in ENSEMBLES}
    analytic = [name for name, scorer in chosen.items() if scorer.needs == "spec" and name not in COUNTS]
    own = [scorer for scorer in chosen.values() if scorer.source == OWN and scorer.needs != "spec"]
    others = {*analytic, *COUNTS, *(scorer.name for scorer in own)}
    return analytic, passes_for((name for name in names if name not in others), own)


def _subjects(settings: RankSettings) -> Iterator[Subject]:
    if settings.benchmark is not None:
        yield from benchmark_subjects(settings.benchmark, Path(settings.tables or ""), settings.sample, settings.seed)
        return
    for entry in _entries(str(settings.networks)):
        name = str(entry["model"])
        accuracy = {key: float(value) for key, value in entry.items() if key != "model"}
        yield replace(_named(name, settings.image_size), accuracy=accuracy)


def _named(name: str, image_size: int) -> Subject:
    """A published architecture, a spec file, or a baseline; raises UserError for anything else."""
    if is_published(name) or is_spec_file(name) or Path(name).exists():
        spec = load_published(name) if is_published(name) else load_spec(name)
        return spec_subject(name, spec, image_size or None)
    from nas.api import build, count

    module = build(name)
    side = image_side(module, image_size or None)
    counts = count(module, "folded", side)
    return Subject(name, {"params": counts.params, "macs": counts.macs}, lambda: build(name), side)


def _entries(networks: str) -> list[dict[str, Any]]:
    """The networks to score: the one that is named, or those of a YAML list."""
    if is_published(networks) or not Path(networks).exists():
        return [{"model": networks}]
    content = read_yaml(networks)
    if isinstance(content, dict):
        return [{"model": networks}]
    if not isinstance(content, list) or not content:
        raise UserError(f"{networks} is neither a spec file nor a YAML list of networks")
    entries = [item if isinstance(item, dict) else {"model": item} for item in content]
    for item in entries:
        numbers = [value for key, value in item.items() if key != "model"]
        if "model" not in item or any(type(value) not in (int, float) for value in numbers):
            raise UserError(f"{networks}: an entry is a name, or a mapping of `model` and accuracies; got {item}")
        if any(value < 0 or value > 1 for value in numbers):
            raise UserError(f"{networks}: accuracies are fractions from 0 to 1; got {item}")
    return entries


def _count(settings: RankSettings) -> int:
    if settings.benchmark is None:
        return sum(1 for _ in _subjects(settings))  # every name is looked up before anything is computed
    rows = len(benchmark_rows(settings.benchmark, Path(settings.tables or "")))
    return min(rows, settings.sample or rows)


def _measure(settings: RankSettings, passes: tuple[Pass, ...], path: Path, count: int) -> None:
    import torch
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from nas.scorers.measuring import Protocol, measure_all

    torch.set_num_threads(settings.threads)
    protocol = Protocol(settings.batch, settings.inputs, settings.image_size)
    source = {"benchmark": settings.benchmark} if settings.benchmark else {"networks": settings.networks}
    log = ScoreLog(path, source | protocol.as_dict())

    def seeds(position: int) -> int:
        return max(settings.seeds, settings.spread_seeds if position < settings.spread_networks else 0)

    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not settings.progress) as bar:
        task = bar.add_task("networks", total=count)
        measure_all(_subjects(settings), passes, protocol, log, seeds, lambda: bar.advance(task))


def _collect(
    settings: RankSettings, analytic: list[str], passes: tuple[Pass, ...], path: Path, count: int
) -> RankTable:
    """Read the scores back, add counts, analytic scores and ensembles, and judge everything."""
    names, keys, columns, truth = _known(settings, analytic, count)
    repeats, seconds = _measured(settings, passes, path, keys) if passes else ({}, {})
    columns |= {name: values[:, 0] for name, values in repeats.items()}
    cost = {answer: seconds[step.name] for step in passes for answer in step.answers}
    for ensemble, members in ENSEMBLES.items():
        if ensemble in settings.scorers and count > 1:
            ranked = [columns[member] for member in members]
            columns[ensemble] = log_rank(ranked) if ensemble == "aznas" else vote(ranked)
            cost[ensemble] = sum(seconds[step.name] for step in passes if set(step.answers) & set(members))
    published = _published(settings.published)
    rows = []
    for target, accuracy in truth.items():
        known = ~np.isnan(accuracy)
        for name, column in {**columns, "random": np.zeros(count)}.items():
            if known.sum() < 3:
                continue
            judged = agreement(column[known], accuracy[known], settings.resamples, settings.seed)
            spreading = _spread(repeats.get(name), accuracy)
            rows.append(Row(name, target, judged, spreading, cost.get(name, 0.0), published.get((name, target), "")))
    return RankTable(names, columns, repeats, truth, rows, _protocol_text(settings))


def _known(settings: RankSettings, analytic: list[str], count: int) -> tuple[list[str], list[str], Columns, Columns]:
    """Names, keys of the log, counts and analytic scores, and accuracies of all networks."""
    names: list[str] = []
    keys: list[str] = []
    columns = {name: np.full(count, np.nan) for name in (*COUNTS, *analytic)}
    truth: Columns = {}
    for index, subject in enumerate(_subjects(settings)):
        names.append(subject.name)
        keys.append(subject.key)
        for key, value in subject.counts.items():
            columns[key][index] = value
        for key, value in subject.accuracy.items():
            truth.setdefault(key, np.full(count, np.nan))[index] = value
        for name in analytic:
            if subject.spec is not None:
                columns[name][index] = score_spec(subject.spec, name, subject.image_size)
    return names, keys, {name: column for name, column in columns.items() if not np.isnan(column).all()}, truth


def _measured(
    settings: RankSettings, passes: tuple[Pass, ...], path: Path, keys: list[str]
) -> tuple[Columns, dict[str, float]]:
    """Scores (networks, seeds) from the log, and the mean seconds of each pass."""
    depth = max(settings.seeds, settings.spread_seeds if settings.spread_networks else 1)
    repeats = {answer: np.full((len(keys), depth), np.nan) for step in passes for answer in step.answers}
    order: dict[str, list[int]] = {}  # a network may be listed twice, say with the accuracies of two recipes
    for index, key in enumerate(keys):
        order.setdefault(key, []).append(index)
    spent: dict[str, list[float]] = {step.name: [] for step in passes}
    for network, seed, scores, seconds in read_scores(path):
        if network in order and seed < depth:
            for answer, value in scores.items():
                if answer in repeats:
                    repeats[answer][order[network], seed] = value
        for name in seconds.keys() & spent.keys():
            spent[name].append(seconds[name])
    return repeats, {name: float(np.mean(values)) if values else 0.0 for name, values in spent.items()}


def _spread(repeats: np.ndarray | None, accuracy: np.ndarray) -> Spread | None:
    """Spread over seeds on the networks that were scored with all of them."""
    if repeats is None or repeats.shape[1] < 2:
        return None
    full = ~np.isnan(accuracy) & ~np.isnan(repeats).any(1)
    return spread(repeats[full], accuracy[full]) if full.sum() >= 3 else None


def _protocol_text(settings: RankSettings) -> str:
    what = settings.benchmark or settings.networks
    seen = "Gaussian noise" if settings.inputs == "gaussian" else f"random crops of the pictures in {settings.inputs}"
    size = f"{settings.image_size} px" if settings.image_size else "the network's own size"
    return (
        f"{what}: data-dependent scorers see {seen}, batch {settings.batch}, at {size}, random labels; "
        "PyTorch's default initialisation, one seed a score unless a spread is given."
    )


def _published(path: Path | None) -> dict[tuple[str, str], str]:
    """(scorer, target) -> what was published, from a CSV with the columns scorer, target, statistic, value, source."""
    if path is None:
        return {}
    found: dict[tuple[str, str], str] = {}
    try:
        for row in csv.DictReader(read_text(path).splitlines()):
            key = (row["scorer"], row["target"])
            text = f"{row['statistic']} {row['value']} ({row['source']})"
            found[key] = f"{found[key]}; {text}" if key in found else text
    except KeyError as error:
        raise UserError(f"{path} lacks the column {error}") from None
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file: {error}") from None
    return found
