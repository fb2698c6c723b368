"""What the bench holds so far: results.md and two pictures, also from an unfinished training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.detector_bench.table import Run
from experiments.noise import Noise, measured_noise
from nas.errors import UserError
from nas.files import write_atomic
from nas.report.canvas import ACCENT, INK, PALE, WARM, canvas, label, save_png
from nas.scorers.agreement import spearman

COLOURS = {"optimal": ACCENT, "scaled": WARM, "random": INK}
#: Columns of the table of rank correlations: a score or a count, and its sign.
RANKED = ("effective_rank", "mae", "mae_neck", "mae_residual", "deepmad", "level_balance", "params", "macs", "layers")


def write_report(runs: Sequence[Run], folder: Path) -> str:
    """results.md, curves.png and latency.png in `folder`; the text is returned. UserError if there is no run yet."""
    if not runs:
        raise UserError("the bench holds no run yet: python -m experiments.detector_bench train")
    lines = []
    sets = list(dict.fromkeys(run.data for run in runs))
    for data in sets:
        lines += summary([run for run in runs if run.data == data])
    text = "\n".join(lines) + "\n"
    write_atomic(folder / "results.md", text)
    draw_curves(runs, sets, folder / "curves.png")
    draw_latency(runs, sets, folder / "latency.png")
    return text


def summary(runs: Sequence[Run]) -> list[str]:
    """The lines of one data set."""
    firsts = first_seeds(runs)
    aps = np.array([run.test_ap for run in firsts])
    first = runs[0]
    measured = sum(run.measured_ms is not None for run in runs)
    lines = [
        f"## {first.data}",
        "",
        f"{len(firsts)} networks, {len(runs)} runs of {first.epochs} epochs at {first.image_size} pixels; test AP "
        f"{aps.min():.3f} to {aps.max():.3f}, median {np.median(aps):.3f}; {np.mean([r.cpu_seconds for r in runs]) / 60:.1f} "
        f"minutes of CPU a run; {measured} measured.",
        noise_line(runs),
        "",
        "| band | best | family | test AP | val AP |",
        "|---|---|---|---|---|",
    ]
    for band in sorted({run.band_ms for run in firsts}):
        best = sorted((run for run in firsts if run.band_ms == band), key=lambda run: -run.val_ap)[:3]
        lines += [f"| {band:g} ms | {r.name} | {r.family} | {r.test_ap:.3f} | {r.val_ap:.3f} |" for r in best]
    lines += ["", "Rank correlation with test AP within bands (mean over bands):", ""]
    rhos = [(name, within_bands(firsts, name)) for name in RANKED]
    told = [f"{name} {rho:+.2f}" for name, rho in rhos if rho is not None]
    return [*lines, ", ".join(told) + "." if told else "too few networks in a band yet.", ""]


def noise_line(runs: Sequence[Run]) -> str:
    """What seeds alone make of the differences between networks, in a line."""
    try:
        noise = noise_of(runs)
    except UserError:
        return "Noise: not known yet, two networks with several seeds are needed."
    return (
        f"Noise: test AP deviates by {noise.between:.4f} between networks of a band and {noise.within:.4f} between seeds "
        f"({noise.networks} networks with several); variance ratio {noise.ratio:.1f}; a perfect score would correlate "
        f"about {noise.ceiling:.2f} with one seed."
    )


def noise_of(runs: Sequence[Run]) -> Noise:
    """Between-network against between-seed deviation of test AP on one data set, bands taken out.

    UserError if fewer than two networks have several seeds.
    """
    bands = {
        band: np.mean([r.test_ap for r in first_seeds(runs) if r.band_ms == band]) for band in {r.band_ms for r in runs}
    }
    values: dict[str, list[float]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        values.setdefault(run.digest, []).append(float(run.test_ap - bands[run.band_ms]))
    return measured_noise(values.values())


def first_seeds(runs: Sequence[Run]) -> list[Run]:
    """One run a network: that of the lowest seed."""
    found: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        found.setdefault(run.digest, run)
    return list(found.values())


def within_bands(runs: Sequence[Run], name: str) -> float | None:
    """Spearman's rho of a score or count with test AP, the mean over bands with networks enough."""
    values = np.array([(run.scores | run.counts)[name] for run in runs])
    return within(values, np.array([run.test_ap for run in runs]), np.array([run.band_ms for run in runs]))


def within(values: np.ndarray, aps: np.ndarray, groups: np.ndarray, fewest: int = 8) -> float | None:
    """Spearman's rho of values with APs, the mean over groups of at least `fewest` networks; None if there are none."""
    parts = [groups == group for group in np.unique(groups)]
    rhos = [spearman(values[part], aps[part]) for part in parts if part.sum() >= fewest]
    return float(np.mean(rhos)) if rhos else None


def draw_curves(runs: Sequence[Run], sets: Sequence[str], path: Path) -> None:
    """Validation AP over epochs, one panel a data set."""
    figure, grid = canvas(1, len(sets), 5.2 * len(sets), 4.2)
    for axes, data in zip(grid[0], sets, strict=True):
        for run in runs:
            if run.data == data and run.seed == 0:
                epochs, aps, _ = zip(*run.curve, strict=True)
                axes.plot(epochs, aps, color=COLOURS.get(run.family, PALE), lw=0.8, alpha=0.6)
        label(axes, f"{data}: every network's learning curve", "epoch", "val AP, averaged weights")
    _legend(grid[0, 0])
    save_png(figure, path)


def draw_latency(runs: Sequence[Run], sets: Sequence[str], path: Path) -> None:
    """Test AP over milliseconds: measured where all of a data set's runs are, else predicted."""
    figure, grid = canvas(1, len(sets), 5.2 * len(sets), 4.2)
    for axes, data in zip(grid[0], sets, strict=True):
        chosen = [run for run in runs if run.data == data]
        measured = all(run.measured_ms is not None for run in chosen)
        for run in chosen:
            ms = run.measured_ms if measured else run.latency_ms
            axes.scatter([ms], [run.test_ap], s=14, color=COLOURS.get(run.family, PALE), alpha=0.8)
        x = "measured ms of the exported file, one thread" if measured else "predicted ms at 320 pixels, one thread"
        label(axes, f"{data}: equally fast, not equally good", x, "test AP")
    _legend(grid[0, 0])
    save_png(figure, path)


def _legend(axes) -> None:  # type: ignore[no-untyped-def]
    for family, colour in COLOURS.items():
        axes.plot([], [], color=colour, label=family)
    axes.legend(fontsize=8, frameon=False)
