"""Why a search did not use up a limit, in words that are true of what it did: proved, or merely ended."""

from __future__ import annotations

from nas.cost.budget import Budget
from nas.searchers.candidate import Candidate
from nas.searchers.loop import SearchOutcome
from nas.spec import backbone_of
from search_spaces import SearchSpace


def limit_notes(space: SearchSpace, budget: Budget, best: Candidate, outcome: SearchOutcome) -> list[str]:
    """One note for every limit that the best does not use up to within 2 %, and for a search without a proof its reason."""
    loose = [metric for metric in budget.metrics if metric not in budget.binding(best.metrics)]
    unit = int(getattr(space, "unit_layers", 1))
    backbone = backbone_of(best.spec)
    notes, use = [], budget.use(best.metrics)
    full = "layers" in loose and budget["layers"] - best.metrics["layers"] < unit
    stops = [
        f"the limit on {metric}" for metric in budget.metrics if metric not in loose or (full and metric == "layers")
    ]
    stops += [f"space limit {cap}" for cap in space.reached(backbone)]
    for metric in loose:
        if full and metric == "layers":
            notes.append(
                f"layers is used up: {best.metrics['layers']:.0f} of {budget['layers']:g}, and one more unit has {unit}"
            )
            continue
        if outcome.certificate is not None:
            why = (
                f"the proven optimum stands at {', '.join(stops)}"
                if stops
                else "no member that uses more of it is better"
            )
        else:
            why = f"the search ended after {outcome.evaluated:,} evaluations, without a proof that using more does not help"
            why += f"; its best stands at {', '.join(stops)}" if stops else ""
        notes.append(f"{metric} does not bind ({100 * use[metric]:.0f} % used): {why}")
    if outcome.unproven:
        notes.append(f"the optimum is unproven: {outcome.unproven}")
    if outcome.open_levels:
        notes.append(f"the front is not proven at {outcome.open_levels} of the costs that exact search tried")
    return notes
