"""Verdicts inside one jitted call against the engine, on short items of the bundled task.

    python benchmarks/jit_scoring.py
    python benchmarks/jit_scoring.py --items 256 --rows 32 64 256 --repeats 3

Two sets of items: `equal`, whose solutions have one number of steps and no error, so that all chains are about as
long; and `mixed`, as the task draws them. Both programs judge the same items with the same settings, in turns, and
their verdicts are compared. Compilation is counted apart.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from thinkprm_jax import ThinkPRM, token_prompts, verifier_params, verify_tokens
from thinkprm_jax.evaluation.results import EvaluationCase
from thinkprm_jax.evaluation.tasks.arithmetic import arithmetic_case

STEPS = 3  # of the equal items


def items(kind: str, count: int) -> list[EvaluationCase]:
    cases = (arithmetic_case(0, index, "test") for index in itertools.count())
    if kind == "equal":
        cases = (case for case in cases if len(case.steps) == STEPS and case.first_error < 0)
    return list(itertools.islice(cases, count))


def seconds(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=256)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--max-tokens", type=int, default=160, help="budget of a chain")
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 64, 256], help="decoded together inside jit")
    parser.add_argument("--slots", type=int, nargs="+", default=[32, 64, 256], help="of the engine")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    verify = jax.jit(verify_tokens, static_argnames=("max_tokens", "rows"))
    common = {"temperature": 0.0, "max_gen_tokens": options.max_tokens, "max_length": 512}
    engines = {slots: ThinkPRM(options.model, slots=slots, **common) for slots in options.slots}
    print(f"{options.items} items, {options.model}, greedy, at most {options.max_tokens} tokens a chain\n")
    print("| items | program | s to compile | s, median | lowest to highest | sampled tokens/s |")
    print("|---|---|---|---|---|---|")
    for kind in ("equal", "mixed"):
        cases = items(kind, options.items)
        problems, solutions = [case.problem for case in cases], [list(case.steps) for case in cases]
        prm = next(iter(engines.values()))
        params = verifier_params(prm, max_steps=max(map(len, solutions)))

        def inside(rows: int) -> Any:
            prompts = token_prompts(prm, problems, solutions)  # noqa: B023  part of what a step has to do
            return verify(params, prompts, max_tokens=options.max_tokens, rows=rows)  # noqa: B023

        runs: dict[str, Callable[[], Any]] = {
            f"engine, {slots} slots": lambda prm=prm: prm.predict_correctness_batch(problems, solutions)  # noqa: B023
            for slots, prm in engines.items()
        } | {f"inside jit, {rows} rows": lambda rows=rows: inside(rows) for rows in options.rows}
        first = {name: seconds(run) for name, run in runs.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(options.repeats):
            for name, run in runs.items():
                times[name].append(seconds(run))
        found = jax.tree.map(np.asarray, inside(options.rows[0]))
        host = prm.predict_correctness_batch(problems, solutions)
        tokens = int(found.output_tokens.sum())
        for name, measured in times.items():
            median = statistics.median(measured)
            spread = f"{min(measured):.2f} to {max(measured):.2f}"
            cells = (kind, name, f"{first[name] - median:.1f}", f"{median:.2f}", spread, f"{tokens / median:,.0f}")
            print(f"| {' | '.join(cells)} |", flush=True)
        print_agreement(kind, found, host, solutions)
    return 0


def print_agreement(kind: str, found: Any, host: list[dict[str, Any]], solutions: list[list[str]]) -> None:
    rows = range(len(host))
    labels = sum(found.step_labels[i, : len(solutions[i])].tolist() == host[i]["step_labels"][0] for i in rows)
    apart = max(abs(float(found.prefix_score[i]) - host[i]["prefix_score"]) for i in rows)
    tokens = found.output_tokens
    print(f"{kind}: {labels} of {len(host)} equal labels, scores at most {apart:.1e} apart, {found.covered.sum()} "
          f"covered; {tokens.min()} to {tokens.max()} tokens a chain", file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
