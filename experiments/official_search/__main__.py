"""python -m experiments.official_search problem=small table=PATH [seed=0] [seconds=60] [searcher=evolution] [save=false]

Repeats a published search problem and compares with the published structure and the known optimum. `seconds` is the
limit of CPU time. save=true: also into result.json.
"""

from __future__ import annotations

import time
from pathlib import Path

from experiments.command import options_of, run
from experiments.evidence import save_result
from experiments.official_problems import chosen, load_table
from nas.errors import UserError
from nas.searchers.evolution import Evolution, RandomSearch
from nas.searchers.loop import Progress, run_loop


class Stop(Exception):
    """The time is over or the target is passed."""


def main(words: list[str]) -> None:
    """Run one search and print what it reached, and when; UserError for what cannot be run."""
    given = options_of(
        words,
        {"problem": "small", "table": "", "seed": 0, "seconds": 60.0, "evaluations": 300_000, "searcher": "evolution",
         "save": False},
    )  # fmt: skip
    official = chosen(given["problem"])
    table = load_table(given["table"])
    problem = official.build(table)
    makers = {"evolution": Evolution, "random": RandomSearch}
    if given["searcher"] not in makers:
        raise UserError(
            f"unknown searcher {given['searcher']!r}; known: {', '.join(makers)} (exact: experiments.exact_search)"
        )
    start = time.process_time()
    reached: list[tuple[float, int]] = []
    scores: list[float] = []

    def watch(progress: Progress) -> None:
        score = progress.best["score"] if progress.best else float("-inf")
        if not scores or score > scores[-1]:
            scores.append(score)
        if not reached and score >= official.target:
            reached.append((time.process_time() - start, progress.evaluated))
        if time.process_time() - start > given["seconds"]:
            raise Stop

    try:
        run_loop(
            problem,
            makers[given["searcher"]](problem, given["seed"]),
            given["evaluations"],
            on_progress=watch,
        )
    except Stop:
        pass
    spent = time.process_time() - start
    best = scores[-1]
    print(f"problem {given['problem']}, seed {given['seed']}: best score {best:.4f} in {spent:.1f} CPU seconds")
    print(f"published {official.published:.2f}, optimum {official.optimum:.2f}, target {official.target:.2f}: ", end="")
    print(f"reached after {reached[0][0]:.2f} s and {reached[0][1]:,} candidates" if reached else "not reached")
    if given["save"]:
        numbers = {
            "best_score": round(best, 4),
            "cpu_seconds": round(spent, 2),
            "published": official.published,
            "optimum": official.optimum,
            "target": official.target,
            "target_after_seconds": round(reached[0][0], 2) if reached else None,
            "target_after_candidates": reached[0][1] if reached else None,
        }
        case = f"{given['problem']}, {given['searcher']}, seed {given['seed']}"
        print(save_result(Path(__file__).with_name("result.json"), case, numbers))


if __name__ == "__main__":
    run(main)
