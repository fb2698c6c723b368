"""The files of a selection: finalists, the table of rungs (deterministic), the winner, what was measured, the page."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nas
from nas.errors import UserError
from nas.files import csv_text, save_spec, write_atomic, write_json
from nas.measure import cpu_facts
from nas.provenance import commit
from nas.report.canvas import ACCENT, PALE, WARM, Shown, canvas, label
from nas.selection.halving import RungResult
from nas.selection.portfolio import Finalist, Proposal
from nas.selection.rungs import Plan
from nas.selection.spent import Spent
from nas.spec import DetectorSpec, digest, from_dict, to_dict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nas.selection.trainings import Deployed, Trainings

#: Predicted costs that the table shows.
SHOWN = ("latency_ms", "flops_g", "params_m", "layers")
#: Validation AP below which an order of networks is chance: they are still learning where objects are at all.
LEARNED = 0.05
#: Training pictures below which weights that were trained on many more beat a start from scratch: with a tenth of COCO's
#: 118,000 scratch was no worse yet, with a hundredth it was (He et al., arXiv 1811.08883).
FEW = 10_000


@dataclass(frozen=True)
class SelectionResult(Shown):
    """What a selection found: who entered, what each rung saw, learning curves of val AP by digest, what was deployed.

    `winner` has the best validation AP at the end of the last rung (the mean over seeds); the best drawn network has
    always come so far, so none that was drawn is better there. images: of the training split, 0 if unknown; weights: what
    the trainings started from, "" for scratch; kept: by digest, how many entries of those fit and how many there are. The
    picture has the learning curves, the winner's on top. spent: what all starts took together, None if that is not known.
    """

    folder: Path
    proposal: Proposal
    plan: Plan
    finalists: tuple[Finalist, ...]
    rungs: tuple[RungResult, ...]
    curves: Mapping[str, Mapping[int, float]]
    deployed: tuple[Deployed, ...] = ()
    images: int = 0
    weights: str = ""
    kept: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    spent: Spent | None = None

    @property
    def ranking(self) -> tuple[Finalist, ...]:
        """The networks of the last rung, best first."""
        return self.rungs[-1].kept

    @property
    def winner(self) -> Finalist:
        return self.ranking[0]

    @property
    def drawn(self) -> Finalist:
        """The best network that people drew."""
        return next(finalist for finalist in self.ranking if finalist.origin == "drawn")

    def __repr__(self) -> str:
        best = f"{self.winner.name}, val AP {self.val_ap(self.winner):.3f}"
        return f"SelectionResult({best}; {len(self.finalists)} finalists, {len(self.rungs)} rungs, {self.folder})"

    def to_dict(self) -> dict[str, object]:
        return {"folder": str(self.folder), **summary(self), "table": self.rows()}

    def plot(self) -> Figure:
        figure, ((axes,),) = canvas(1, 1, 7, 3.6)
        for finalist in (*self.finalists, self.winner):
            curve = sorted(self.curves.get(finalist.digest, {}).items())
            colour = ACCENT if finalist == self.winner else WARM if finalist.origin == "drawn" else PALE
            axes.plot([epoch for epoch, _ in curve], [ap for _, ap in curve], color=colour, lw=1.2)
        label(axes, f"{self.winner.name} first; drawn by hand in red", "epoch", "validation AP")
        return figure

    def val_ap(self, finalist: Finalist) -> float:
        """Validation AP of a network of the last rung: its best, the mean over seeds."""
        found = [standing.best for standing in self.rungs[-1].standings if standing.finalist == finalist]
        return sum(found) / len(found)

    def rows(self) -> list[dict[str, object]]:
        """A row for every finalist, the best first: costs, AP at the end of every rung it took part in, its last epoch."""
        reached: dict[str, dict[int, float]] = {finalist.digest: {} for finalist in self.finalists}
        for rung in self.rungs:
            for standing in rung.standings:
                reached[standing.finalist.digest].setdefault(rung.epochs, standing.ap)
        place = {finalist.digest: number for number, finalist in enumerate(self.ranking)}

        def order(finalist: Finalist) -> tuple[Any, ...]:
            ends = reached[finalist.digest]
            last = max(ends, default=0)
            return place.get(finalist.digest, len(place)), -last, -ends.get(last, 0.0), finalist.name

        rows: list[dict[str, object]] = []
        for rank, finalist in enumerate(sorted(self.finalists, key=order), 1):
            ends = reached[finalist.digest]
            costs = {name: finalist.metrics[name] for name in SHOWN if name in finalist.metrics}
            rows.append(
                {"rank": rank, "name": finalist.name, "origin": finalist.origin, "space": finalist.space,
                 "score": finalist.score, "digest": finalist.digest, **costs,
                 **{f"ap_{rung.epochs}": ends.get(rung.epochs) for rung in self.rungs}, "epochs": max(ends, default=0)}
            )  # fmt: skip
        return rows


def write_finalists(path: Path, finalists: Sequence[Finalist]) -> Path:
    """Store finalists as JSON."""
    rows = [
        {"name": f.name, "origin": f.origin, "space": f.space, "score": f.score, "digest": f.digest,
         "metrics": dict(f.metrics), "spec": to_dict(f.spec)} for f in finalists
    ]  # fmt: skip
    return write_json(path, rows)


def read_finalists(path: Path) -> tuple[Finalist, ...]:
    """The finalists of a file; UserError if it is damaged."""
    try:
        found = []
        for row in json.loads(path.read_text(encoding="utf-8")):
            spec = from_dict(row["spec"])
            if not isinstance(spec, DetectorSpec) or digest(spec) != row["digest"]:
                raise ValueError(f"the digest of {row['name']} does not belong to its spec")
            metrics = {str(name): float(value) for name, value in row["metrics"].items()}
            origin = "drawn" if row["origin"] == "drawn" else "searched"
            found.append(Finalist(row["name"], origin, row["space"], row["score"], spec, row["digest"], metrics))  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} does not hold finalists: {error}") from None
    return tuple(found)


def write_selection(result: SelectionResult, trainings: Trainings) -> list[Path]:
    """Write everything; selection.csv, selected.yaml and selected.safetensors are the same whenever the run is repeated."""
    folder, winner = result.folder, result.winner
    first = next(item for item in result.deployed if item.finalist == winner)
    weights = trainings.place(winner, first.seed) / "best.safetensors"
    exported = sorted(first.file.parent.glob(f"{first.file.stem}.*"))
    return [
        write_atomic(folder / "selection.csv", table_csv(result)),
        save_spec(folder / "selected.yaml", winner.spec, name=winner.name, metrics=rounded(winner.metrics),
                  provenance=provenance(result)),
        write_atomic(folder / "selected.safetensors", weights.read_bytes()),
        *(write_atomic(folder / f"selected{file.suffix}", file.read_bytes()) for file in exported),
        write_json(folder / "summary.json", summary(result)),
    ]  # fmt: skip


def table_csv(result: SelectionResult) -> str:
    """The table of rungs as CSV."""
    rows = result.rows()
    shown = [[f"{value:.6g}" if isinstance(value, float) else value for value in row.values()] for row in rows]
    return csv_text([list(rows[0]), *shown])


def provenance(result: SelectionResult) -> dict[str, object]:
    """Where the winner comes from; the same whenever the selection is repeated."""
    proposal = result.proposal
    return {
        "maenas": nas.__version__,
        "limits": proposal.budget.to_dict(),
        "hardware": Path(proposal.hardware).stem,
        "candidates": len(result.finalists),
        "tolerance": proposal.tolerance,
        "seed": proposal.seed,
        "seeds": result.plan.seeds,
        "epochs": [rung.epochs for rung in result.plan.rungs],
        "origin": result.winner.origin,
        "space": result.winner.space,
        "scorer": result.winner.score,
        "val_ap": round(result.val_ap(result.winner), 5),
        "drawn": result.drawn.name,
        "drawn_val_ap": round(result.val_ap(result.drawn), 5),
    }


def rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """Costs as a spec file holds them."""
    return {name: round(value, 6) for name, value in metrics.items()}


def summary(result: SelectionResult) -> dict[str, object]:
    """Everything for a machine to read; measured milliseconds and seconds, host and date are here and in the page alone."""
    return {
        **provenance(result),
        "winner": result.winner.name,
        "digest": result.winner.digest,
        "trained_epochs": trained_epochs(result),
        "exhaustive_epochs": result.plan.exhaustive,
        "deployed": [
            {"name": item.finalist.name, "origin": item.finalist.origin, "seed": item.seed, "file": item.file.name,
             "split": item.split, "ap": round(item.ap, 5), "ap50": round(item.ap50, 5), "ms": item.ms,
             "ms_quartiles": item.spread, "predicted_ms": item.finalist.metrics.get("latency_ms")}
            for item in result.deployed
        ],
        **({"weights": result.weights, "kept_entries": kept_by_name(result)} if result.weights else {}),
        **({name: round(value, 1) for name, value in asdict(result.spent).items()} if result.spent else {}),
        "host": cpu_facts() | {"platform": platform.platform(), "commit": commit()},
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def kept_by_name(result: SelectionResult) -> dict[str, str]:
    """How much of the weights each finalist started with: "120 of 200"."""
    known = {finalist.name: result.kept[finalist.digest] for finalist in result.finalists}
    return {name: f"{kept} of {total}" for name, (kept, total) in known.items()}


def trained_epochs(result: SelectionResult) -> int:
    """Epochs of all trainings together."""
    furthest: dict[tuple[str, int], int] = {}
    for rung in result.rungs:
        for standing in rung.standings:
            key = (standing.finalist.digest, standing.seed)
            furthest[key] = max(furthest.get(key, 0), rung.epochs)
    return sum(furthest.values())


def began(result: SelectionResult) -> list[str]:
    """What the trainings started from, and what that means for the winner."""
    if not result.weights:
        told = (
            f"All networks started from scratch on {result.images:,} pictures, which loses to weights that were trained on many "
            "more: fine-tune such a detector beside the winner (python -m nas.train model=CHECKPOINT), or give weights=FILE."
        )
        return [told] if 0 < result.images < FEW else []
    fitting = [
        f"{kept} of {total} entries fit {finalist.name}"
        for finalist in dict.fromkeys((result.winner, result.drawn))
        for kept, total in [result.kept[finalist.digest]]
    ]
    return [f"All networks started from {result.weights}: {', '.join(fitting)}. What more fits has the advantage."]


def verdict(result: SelectionResult) -> list[str]:
    """What was found, in sentences."""
    winner, drawn = result.winner, result.drawn
    lead = 100 * (result.val_ap(winner) - result.val_ap(drawn))
    lines = [
        f"{winner.name} ({winner.origin}) has the best validation AP, {100 * result.val_ap(winner):.1f}; the best network "
        f"that people drew, {drawn.name}, has {100 * result.val_ap(drawn):.1f} ({lead:+.1f})."
        if winner != drawn
        else f"{winner.name}, a network that people drew, has the best validation AP, {100 * result.val_ap(winner):.1f}: "
        "no searched one beats it here.",
        f"{trained_epochs(result)} epochs were trained; training all {len(result.finalists)} networks to the end takes "
        f"{result.plan.exhaustive}.",
    ]
    if result.spent is not None:
        lines.append(f"The whole selection, search, trainings and files, took {result.spent}.")
    if result.val_ap(winner) < LEARNED:
        lines.append(
            f"No network has learned these data yet (AP below {100 * LEARNED:g}), so their order says nothing: give more "
            "minutes or epochs, a larger image_size, or weights=FILE."
        )
    lines += began(result)
    if result.plan.seeds == 1:
        lines.append("One seed: differences of one or two points may be chance; seeds=3 tells.")
    for item in result.deployed:
        speed = f"{item.ms:.2f} ms measured here" if item.ms is not None else "not timed: the table's device is another"
        lines.append(
            f"{item.file.name}: {item.split} AP {100 * item.ap:.1f}, AP50 {100 * item.ap50:.1f}, {speed} "
            f"({item.finalist.metrics['latency_ms']:.2f} ms predicted)."
        )
    return lines
