"""python -m experiments.exact_search problem=tiny|small|medium table=PATH [levels=48] [near=12]

The provably best backbone of a published search problem, with its certificate, its front and its neighbours.
"""

from __future__ import annotations

import time

from experiments.command import options_of, run
from experiments.official_problems import chosen, load_table
from nas.commands.search_files import shape_of
from nas.errors import UserError
from nas.searchers.exact.search import exact_search


def main(words: list[str]) -> None:
    """Prove one optimum and print its certificate; UserError for what cannot be run."""
    given = options_of(words, {"problem": "small", "table": "", "levels": 48, "near": 12})
    official = chosen(given["problem"])
    start, cpu = time.monotonic(), time.process_time()
    problem = official.build(load_table(given["table"]))
    result = exact_search(problem, given["levels"], near=given["near"])
    if result.best is None and not result.unproven:
        raise UserError("no network of the space keeps the limits")
    if result.best is None or result.certificate is None:
        raise UserError(f"unproven: {result.unproven}")
    proof = result.certificate
    print(f"problem {given['problem']}: {official.layers} layers, {official.latency_ms} ms per image")
    print(
        f"optimum     {proof.optimum:.6f} at {result.best.metrics['latency_ms']:.6f} ms: {shape_of(result.best.spec)}"
    )
    print(
        f"proof       no member scores more than {proof.upper:.6f}: gap {proof.gap:.1e} (rounding {proof.rounding:.1e})"
    )
    print(f"covered     {proof.architectures:,} architectures")
    print(f"published   {official.published:.2f}: {proof.gap_of(official.published):.2f} below the bound")
    print(f"front       {len(result.front)} networks from {result.front[-1].metrics['latency_ms']:.5f} ms")
    print(f"time        {time.monotonic() - start:.1f} s, of which CPU {time.process_time() - cpu:.1f} s")
    print(f"others within {100 * result.share:g} %, of different shape:")
    for candidate in result.near:
        print(f"  {candidate.score:.3f}  {candidate.metrics['latency_ms']:.6f} ms  {shape_of(candidate.spec)}")


if __name__ == "__main__":
    run(main)
