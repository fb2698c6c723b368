"""Judges scorers by the trained accuracy of networks that cost the same: noise first, then correlations."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.noise import Noise, measured_noise
from experiments.scorer_truth.networks import Network
from experiments.scorer_truth.training import Recipe, Result
from nas.cost.count import count_spec
from nas.files import write_atomic
from nas.frame import Frame
from nas.report.canvas import ACCENT, INK, PALE, WARM, canvas, label, save_png
from nas.scorers import score_spec
from nas.scorers.agreement import Agreement, agreement, spearman

EVEN = (0.0, 0.0, 1.0, 1.0, 1.0)
#: The count that a score must beat to be worth having.
BASELINE = "layers"
_COUNTS = ("layers", "-layers", "params", "macs", "activations", "-rho", "-latency")


def accuracies(results: Sequence[Result]) -> dict[str, list[float]]:
    """AP50 of every network, one a seed."""
    by_name: dict[str, list[float]] = {}
    for row in results:
        by_name.setdefault(row.name, []).append(row.ap50)
    return by_name


def analytic_scores(networks: Sequence[Network]) -> dict[str, np.ndarray]:
    """Every score and count that needs no training and no torch, for each network."""
    frame = Frame()
    columns: dict[str, list[float]] = {}
    for network in networks:
        backbone = network.backbone
        counts = count_spec(backbone)
        detector = frame.detector(backbone)
        values = {
            "mae": score_spec(backbone, "mae"),
            "mae (1,1,1)": score_spec(backbone, "mae", level_weights=EVEN),
            "mae_neck": score_spec(detector, "mae_neck"),
            "deepmad": score_spec(backbone, "deepmad"),
            "deepmad (1,1,1)": score_spec(backbone, "deepmad", level_weights=EVEN),
            "mae_residual": score_spec(backbone, "mae_residual"),
            "effective_rank": score_spec(backbone, "effective_rank"),
            "level_balance": score_spec(backbone, "level_balance"),
            "layers": float(counts.layers),
            "-layers": -float(counts.layers),
            "params": float(counts.params),
            "macs": float(counts.macs),
            "activations": float(counts.activations),
            "-rho": -counts.rho,
            "-latency": -network.latency_ms,
        }
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    result = {name: np.array(values) for name, values in columns.items()}
    ours = [result[name] for name in ("mae_residual", "effective_rank", "level_balance")]
    result["mean rank of ours"] = np.mean([values.argsort().argsort() for values in ours], axis=0)
    return result


@dataclass(frozen=True, slots=True)
class Judgement:
    """Agreement of one score with AP50, and its lead in Spearman's rho over the baseline with a paired interval."""

    score: str
    agreement: Agreement
    lead: float
    lead_low: float
    lead_high: float


def resampled(values: np.ndarray, ap50: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """Spearman's rho of all networks, then of `resamples` draws of them, the same for every score of one seed."""
    draws = np.random.default_rng(seed).integers(0, ap50.size, (resamples, ap50.size))
    return np.array([spearman(values, ap50), *(spearman(values[draw], ap50[draw]) for draw in draws)])


def lead_over(rho: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """How much further one score's rho reaches than another's, with its paired 95 % interval."""
    leads = rho - other
    low, high = np.quantile(leads[1:], (0.025, 0.975))
    return float(leads[0]), float(low), float(high)


def judge(scores: Mapping[str, np.ndarray], ap50: np.ndarray, resamples: int = 1000, seed: int = 0) -> list[Judgement]:
    """All scores, best first; the lead over the baseline is resampled on the same networks for both."""
    judged = []
    base = resampled(scores[BASELINE], ap50, resamples, seed)
    for name, values in scores.items():
        lead = lead_over(resampled(values, ap50, resamples, seed), base)
        judged.append(Judgement(name, agreement(values, ap50, resamples, seed), *lead))
    return sorted(judged, key=lambda item: -item.agreement.spearman.value)


def recommendation(judged: Sequence[Judgement], noise: Noise) -> str:
    """What the evidence allows to say, in a sentence or two."""
    proper = [item for item in judged if item.score not in _COUNTS]
    best = proper[0]
    rho = best.agreement.spearman
    if noise.ratio < 1:
        return (
            f"No recommendation: seeds make more of the variance than networks do (ratio {noise.ratio:.2f}); "
            "train longer or take more seeds."
        )
    head = f"Best score: {best.score}, Spearman {rho.value:.2f} [{rho.low:.2f}, {rho.high:.2f}]; "
    lead = f"lead over counting {BASELINE} {best.lead:+.2f} [{best.lead_low:+.2f}, {best.lead_high:+.2f}]. "
    counts = [item for item in judged if item.score in _COUNTS]
    counted = counts[0].agreement.spearman
    others = f"Best count: {counts[0].score}, Spearman {counted.value:.2f} [{counted.low:.2f}, {counted.high:.2f}]. "
    if best.lead_low > 0 and rho.value > counted.value and rho.low > 0:
        return head + lead + others + f"Recommended: {best.score}."
    if rho.low > 0 and rho.value > counted.value:
        return head + lead + others + "The lead is not certain at 95 %: usable, but it cannot be said to beat counting."
    return head + lead + others + "Nothing here beats counting: no score is recommended over it."


def write_report(
    networks: Sequence[Network], results: Sequence[Result], folder: Path, recipe: Recipe, resamples: int = 1000
) -> str:
    """results.md, scores.csv and scorer_truth.png in `folder`; the text, noise before any correlation, is returned."""
    firsts = {row.name: row for row in sorted(results, key=lambda row: -row.seed)}
    trained = [network for network in networks if network.name in firsts]
    noise = measured_noise(accuracies(results).values())
    ap50 = np.array([firsts[network.name].ap50 for network in trained])
    lines = [
        f"{len(trained)} of {len(networks)} networks trained, {len(results)} runs ({recipe}). Median AP50 {np.median(ap50):.3f}, "
        f"range {ap50.min():.3f} .. {ap50.max():.3f}.",
        f"Noise first: deviation between networks {noise.between:.4f}, between seeds {noise.within:.4f} "
        f"({noise.networks} networks x {noise.seeds} seeds); variance ratio {noise.ratio:.2f}; a perfect score would "
        f"correlate about {noise.ceiling:.2f} with one seed.",
    ]
    if np.median(ap50) < 0.5:
        lines.append("The median AP50 is below 0.5: the recipe is too short for conclusions.")
    scores = analytic_scores(trained)
    judged = judge(scores, ap50, resamples)
    lines += ["", "| score | Spearman | Kendall tau-b | best AP50 of its top 10 | lead over layers |"]
    lines += ["|---|---|---|---|---|"]
    for item in judged:
        a = item.agreement
        lines.append(
            f"| {item.score} | {a.spearman.value:.3f} [{a.spearman.low:.3f}, {a.spearman.high:.3f}] "
            f"| {a.kendall.value:.3f} [{a.kendall.low:.3f}, {a.kendall.high:.3f}] | {a.found.value:.3f} "
            f"| {item.lead:+.3f} [{item.lead_low:+.3f}, {item.lead_high:+.3f}] |"
        )
    best, count = (next(j.score for j in judged if (j.score in _COUNTS) == counted) for counted in (False, True))
    lead, low, high = lead_over(*(resampled(scores[name], ap50, resamples) for name in (best, count)))
    lines += ["", recommendation(judged, noise)]
    lines += [f"Over the best count, {count}, the lead of {best} is {lead:+.2f} [{low:+.2f}, {high:+.2f}]."]
    text = "\n".join(lines) + "\n"
    write_atomic(folder / "results.md", text)
    write_atomic(folder / "scores.csv", _scores_csv(trained, ap50, scores))
    _draw(trained, ap50, scores, judged, folder / "scorer_truth.png")
    return text


def _scores_csv(networks: Sequence[Network], ap50: np.ndarray, scores: Mapping[str, np.ndarray]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["name", "group", "ap50", *scores])
    for index, network in enumerate(networks):
        numbers = (f"{values[index]:.7g}" for values in scores.values())
        writer.writerow([network.name, network.group, f"{ap50[index]:.5f}", *numbers])
    return stream.getvalue()


def _draw(
    networks: Sequence[Network],
    ap50: np.ndarray,
    scores: Mapping[str, np.ndarray],
    judged: Sequence[Judgement],
    path: Path,
) -> None:
    figure, grid = canvas(1, 4, 16, 4.4)
    bars = grid[0, 0]
    for position, item in enumerate(reversed(judged)):
        rho = item.agreement.spearman
        color = WARM if item.score in _COUNTS else ACCENT
        bars.plot([rho.low, rho.high], [position, position], color=color, lw=3, alpha=0.45)
        bars.plot(rho.value, position, "o", color=color, ms=5)
    bars.set_yticks(range(len(judged)), [item.score for item in reversed(judged)])
    bars.axvline(0, color=PALE, lw=1)
    label(bars, "rank correlation with trained AP50 (orange: counts)", "Spearman's rho, 95 % interval", "")
    best = next(item.score for item in judged if item.score not in _COUNTS)
    marks = {"random": ("o", PALE), "drawn": ("s", INK), "published": ("*", WARM), "searched": ("^", ACCENT)}
    for axes, name in zip(grid[0, 1:], (best, "mae", BASELINE), strict=True):
        for group, (mark, color) in marks.items():
            chosen = np.array([network.group == group for network in networks])
            if chosen.any():
                axes.plot(scores[name][chosen], ap50[chosen], mark, color=color, label=group, ms=5, mec=INK, mew=0.3)
        label(axes, name, name, "AP50 after the short training")
    grid[0, 1].legend(fontsize=7, frameon=False)
    save_png(figure, path)
