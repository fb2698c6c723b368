"""The files of a search: best.yaml and pareto.csv (deterministic), trace, summary, pictures and the page."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import nas
from nas.cost.count import peak_memory_mb
from nas.cost.latency import LatencyTable, after_network
from nas.errors import UserError
from nas.files import csv_text, dump_yaml, save_spec, spec_document, write_atomic, write_json
from nas.lowering import Operation, operations
from nas.provenance import commit
from nas.report.search import Mark, Near, SearchRecord, network_parts, write_search_page
from nas.report.search_plots import draw_search
from nas.scorers import score_spec
from nas.searchers.base import Candidate
from nas.searchers.problem import Objective
from nas.searchers.run import SearchResult
from nas.searchers.settings import SearchSettings
from nas.spec import Spec, backbone_of, digest
from search_spaces import changed_limits, load_published

Made = TypeVar("Made")
#: Evaluations that trace.csv and the pictures show.
SAMPLE = 4000
SHOWN = ("latency_ms", "flops_g", "params_m", "layers", "rho")


@dataclass(frozen=True)
class Decoration:
    """What stands beside the files of a search: page and pictures, published networks, and what could not be made."""

    written: tuple[Path, ...]
    marks: tuple[Mark, ...]
    warnings: tuple[str, ...]


def write_search(result: SearchResult, folder: Path) -> list[Path]:
    """Write what a search found into `folder`; returns the paths, the most important first."""
    settings, best = result.settings, result.best
    written = [
        save_spec(
            folder / "best.yaml",
            best.spec,
            name=f"{settings.space.name}-{best.digest[:8]}",
            metrics=_rounded(best.metrics),
            provenance=provenance(result),
        )
    ]
    written.append(write_atomic(folder / "pareto.csv", _front_csv(result)))
    written.append(write_atomic(folder / "front.jsonl", _front_lines(result)))
    written.append(write_atomic(folder / "trace.csv", result.outcome.history.to_csv(_sampled(result))))
    written.append(write_json(folder / "summary.json", summary(result)))
    return written


def decorate_search(result: SearchResult, folder: Path) -> Decoration:
    """Set published networks beside a search and draw its page and pictures, once its files are safe.

    Whatever fails is named in `warnings` and left out: a search is not lost for the sake of a picture.
    """
    written: list[Path] = []
    warnings: list[str] = []

    def attempt(what: str, make: Callable[[], list[Made]]) -> list[Made]:
        try:
            return make()
        except Exception as error:  # whatever it is, the result is written already
            reason = (str(error).splitlines() or [""])[0]
            warnings.append(f"{what} left out: {type(error).__name__}: {reason}")
            return []

    marks = attempt("the published networks are", lambda: published(result))
    records = attempt("the report is", lambda: [search_record(result, _sampled(result), marks)])
    if records:
        written += attempt("the page is", lambda: [write_search_page(records[0], folder / "report.html")])
        written += attempt("the pictures are", lambda: draw_search(records[0], folder))
    return Decoration(tuple(written), tuple(marks), tuple(warnings))


def _sampled(result: SearchResult) -> np.ndarray:
    """The evaluations that trace.csv and the pictures show, every improvement among them."""
    history = result.outcome.history
    return history.sample(SAMPLE, history.improvements("score", history.column("excess") == 0))


def provenance(result: SearchResult) -> dict[str, object]:
    """Where a result comes from, enough to repeat the search; the same wherever and however often it ran."""
    settings = result.settings
    neck = asdict(settings.frame)
    image_size = neck.pop("image_size")
    return {
        "maenas": nas.__version__,
        "space": settings.space.name,
        "space_limits": changed_limits(settings.space),
        "limits": settings.budget.to_dict(),
        "scorer": settings.scorer_name,
        "scorer_options": _plain(settings.scorer_options),
        **({"score_digest": settings.score_digest} if settings.score_digest else {}),
        "searcher": settings.searcher_name,
        "searcher_options": _plain(settings.searcher_options),
        **({"start": [digest(spec) for spec in settings.start]} if settings.start else {}),
        "neck": _plain(neck),
        "image_size": image_size,
        "evaluations": settings.evaluations,
        "seed": settings.seed,
        "scope": settings.scope,
        "hardware": result.table.name,
        "table_digest": result.table.digest,
        **({"other_tables": settings.other_tables} if settings.other_tables else {}),
        "search": settings.identity,
    }


def _plain(value: Any) -> Any:
    """Options as YAML and JSON hold them."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def summary(result: SearchResult) -> dict[str, object]:
    """The result with what may differ between runs: host, time, commit, versions, speed."""
    outcome = result.outcome
    return {
        "best": {"digest": result.best.digest, **_rounded(_with_boxes(result))},
        "limits": result.settings.budget.to_dict(),
        "binding": result.binding,
        "notes": list(result.notes),
        "proof": result.proof,
        "unproven": result.outcome.unproven,
        "near": [{"shape": shape_of(c.spec), "digest": c.digest, **_rounded(c.metrics)} for c in result.near],
        "provenance": provenance(result),
        "evaluated": outcome.evaluated,
        "proposed": outcome.proposed,
        "seconds": round(outcome.seconds, 3),
        "interrupted": outcome.interrupted,
        "workers": result.settings.workers,
        "host": platform.node(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "commit": commit(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def until_boxes(result: SearchResult) -> float | None:
    """Predicted milliseconds of the winner until boxes; None where its table does not tell, or it is a backbone."""
    after = after_network(result.table, result.best.spec, result.settings.frame.image_size)
    ms = result.best.metrics.get("latency_ms")
    return None if after is None or ms is None else ms + after


def _with_boxes(result: SearchResult) -> dict[str, float]:
    """The winner's metrics, with e2e_ms where it is known."""
    known = until_boxes(result)
    return dict(result.best.metrics) | ({} if known is None else {"e2e_ms": known})


def published_marks(settings: SearchSettings, table: LatencyTable) -> list[tuple[str, float, dict[str, float]]]:
    """Name, score and costs of published networks of the same kind at the searched image size, and of those that the search
    began with, to set beside the winner."""
    names = ("damo-yolo-t", "damo-yolo-s") if settings.scope == "detector" else ("tinynas_l20_k1kx", "tinynas_l25_k1kx")
    options: dict[str, Any] = {"image_size": settings.frame.image_size, **settings.scorer_options}
    rows = []
    networks = {name: load_published(name) for name in names}
    for number, spec in enumerate(settings.start, 1):
        networks[f"start {number}"] = settings.frame.detector(spec) if settings.scope == "detector" else spec
    for name, spec in networks.items():
        try:
            rows.append((name, score_spec(spec, settings.scorer, **options), _costs(spec, settings, table)))
        except UserError:
            continue  # a published net that this table or scorer cannot judge is left out
    return rows


def _costs(spec: Spec, settings: SearchSettings, table: LatencyTable) -> dict[str, float]:
    """Metrics of any network by the settings' table, at the image size that is searched."""
    side = settings.frame.image_size
    costs = Objective(None, table, None, side, settings.budget.metrics).evaluate(spec)
    del costs["score"]
    return costs | {"peak_memory_mb": peak_memory_mb(spec, side)}


def published(result: SearchResult) -> list[Mark]:
    """The published networks beside the winner, judged by the same table and scorer."""
    settings = result.settings
    return [
        Mark(name, score, metrics, settings.budget.admits(metrics))
        for name, score, metrics in published_marks(settings, result.table)
    ]


def search_record(result: SearchResult, rows: np.ndarray, marks: Sequence[Mark]) -> SearchRecord:
    """What the pictures and the page show."""
    settings, history = result.settings, result.outcome.history
    outside = history.column("excess")
    rose = history.improvements("score", outside == 0)
    names = [name for name in history.names if name not in ("score", "excess")]
    columns = {name: history.column(name)[rows] for name in ("score", *names)}
    columns |= {"evaluation": rows.astype(np.float64) + 1, "feasible": (outside[rows] == 0).astype(np.float64)}
    side = settings.frame.image_size
    return SearchRecord(
        title=f"{settings.space.name}: {settings.budget} on {result.table.name}",
        scorer=settings.scorer_name,
        budget=settings.budget,
        binding=tuple(result.binding),
        notes=tuple(result.notes),
        columns=columns,
        best_curve=np.stack([rose + 1.0, history.column("score")[rose]], axis=1),
        winner=dict(result.best.metrics),
        parts=network_parts(result.best.spec, side, result.table),
        prices=_prices(result),
        front=tuple(_front_row(candidate) for candidate in result.front[:200]),
        near=tuple(_near(result, c) for c in result.near if c.digest != result.best.digest),
        near_share=result.outcome.near_share,
        marks=tuple(marks),
        provenance=provenance(result),
        shape=shape_of(result.best.spec),
        table=result.table.name,
        error_percent=result.table.header.error_percent,
        e2e_ms=until_boxes(result),
        proof=result.proof,
        unproven=result.outcome.unproven,
    )


def _near(result: SearchResult, candidate: Candidate) -> Near:
    metrics = _rounded(candidate.metrics)
    name = f"{result.settings.space.name}-{candidate.digest[:8]}"
    return Near(shape_of(candidate.spec), metrics, dump_yaml(spec_document(candidate.spec, name=name, metrics=metrics)))


def _front_row(candidate: Candidate) -> dict[str, Any]:
    return {"shape": shape_of(candidate.spec), **_rounded(candidate.metrics), "digest": candidate.digest}


def _prices(result: SearchResult) -> tuple[dict[str, Any], ...]:
    """The winner's milliseconds per image, operation by operation, and what the whole network costs beside them."""
    latency = result.table.total(_deployed(result))
    rows: list[dict[str, Any]] = [
        {
            "operation": f"{row.operation.role} {row.operation.kind} k{row.operation.kernel} s{row.operation.stride}",
            "channels": f"{row.operation.in_channels} -> {row.operation.out_channels}",
            "map": f"{row.operation.height}x{row.operation.width}",
            "ms": row.price.ms,
            "how": row.price.how,
            "bound": row.price.bound,
        }
        for row in latency.explain()
    ]
    if latency.offset_ms:
        fixed = {"operation": "whole network, fixed cost", "channels": "", "map": "", "ms": latency.offset_ms}
        rows.append(fixed | {"how": "calibrated", "bound": "launch"})
    return tuple(rows)


def _deployed(result: SearchResult) -> tuple[Operation, ...]:
    return operations(result.best.spec, "folded", result.settings.frame.image_size)


def _front_csv(result: SearchResult) -> str:
    """The front, highest score first, with the shape of each network in one column."""
    names = list(result.best.metrics)
    rows = [(c.digest, *(round(float(c.metrics[name]), 9) for name in names), shape_of(c.spec)) for c in result.front]
    return csv_text([("digest", *names, "shape"), *rows])


def _front_lines(result: SearchResult) -> str:
    """The front, a spec file a line: `nas.load("front.jsonl:3")` reads the third row of pareto.csv."""
    documents = (spec_document(c.spec, metrics=_rounded(c.metrics)) for c in result.front)
    return "".join(json.dumps(document) + "\n" for document in documents)


def shape_of(spec: Spec) -> str:
    """A backbone in one line: the stem's width, then out/bottleneck x depth of every block."""
    backbone = backbone_of(spec)
    blocks = [f"{b.out}/{getattr(b, 'bottleneck', getattr(b, 'hidden', '-'))}x{b.depth}" for b in backbone.blocks]
    return " ".join([str(backbone.stem.out), *blocks])


def _rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics without the noise of the last digits."""
    return {name: round(float(value), 9) for name, value in metrics.items()}
