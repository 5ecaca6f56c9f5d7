"""Verdicts inside one jitted call against the engine, on short items of the bundled task.

    python benchmarks/jit_scoring.py
    XLA_FLAGS=--xla_force_host_platform_device_count=2 python benchmarks/jit_scoring.py --rows 64

The second line lets the rows of the jitted call be split over two devices, which are two processors.

Two sets of items: `equal`, whose solutions have one number of steps and no error, so that all chains are about as
long; and `mixed`, as the task draws them. Both programs judge the same items with the same settings, in turns, new
items in every repeat, and the verdicts of the last are compared. Compilation is counted apart.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from thinkprm_jax import ThinkPRM, VerifierParams, token_prompts, verifier_params, verify_tokens
from thinkprm_jax.evaluation.results import EvaluationCase
from thinkprm_jax.evaluation.tasks.arithmetic import arithmetic_case
from thinkprm_jax.functional import TokenPrompts

STEPS = 3  # of the equal items
MOST_STEPS = 4


def items(kind: str, count: int) -> list[EvaluationCase]:
    cases = (arithmetic_case(0, index, "test") for index in itertools.count())
    if kind == "equal":
        cases = (case for case in cases if len(case.steps) == STEPS and case.first_error < 0)
    return list(itertools.islice(cases, count))


def seconds(run: Callable[[], Any]) -> tuple[float, float]:
    """Of the wall, and of all CPUs."""
    begin, used = time.perf_counter(), time.process_time()
    jax.block_until_ready(run())
    return time.perf_counter() - begin, time.process_time() - used


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=256)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--max-tokens", type=int, default=160, help="budget of a chain")
    parser.add_argument("--rows", type=int, nargs="+", default=[64], help="decoded together inside jit")
    parser.add_argument("--slots", type=int, nargs="+", default=[64], help="of the engine")
    parser.add_argument("--kinds", nargs="+", choices=["equal", "mixed"], default=["equal", "mixed"])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    common = {"temperature": 0.0, "max_gen_tokens": options.max_tokens, "max_length": 512}
    engines = {slots: ThinkPRM(options.model, slots=slots, **common) for slots in options.slots}
    print(f"{options.items} items, {options.model}, greedy, at most {options.max_tokens} tokens a chain\n")
    print("| items | program | s to compile | s, median | lowest to highest | CPU s, median | sampled tokens/s |")
    print("|---|---|---|---|---|---|---|")
    params = verifier_params(next(iter(engines.values())), max_steps=MOST_STEPS)
    for kind in options.kinds:
        programs = {
            f"engine, {slots} slots": functools.partial(with_engine, prm) for slots, prm in engines.items()
        }
        # Of every repeat new ones: what a program has seen may be in its cache.
        cases = items(kind, options.items * (options.repeats + 1))
        turns = [cases[begin : begin + options.items] for begin in range(0, len(cases), options.items)]
        prm = next(iter(engines.values()))
        encode = functools.partial(encoded, prm, max(lengths_of(prm, cases)))
        for rows in options.rows:
            verify = functools.partial(verify_tokens, max_tokens=options.max_tokens, rows=rows)
            programs[f"inside jit, {rows} rows"] = functools.partial(inside_jit, jax.jit(verify), params, encode)
            if jax.device_count() > 1:
                name = f"inside jit, {rows} rows on each of {jax.device_count()} devices"
                programs[name] = functools.partial(inside_jit, jax.jit(split(verify)), params, encode)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
        for number, turn in enumerate(turns):
            for name, run in programs.items():
                times[name].append(seconds(functools.partial(run, turn)))
                print(f"{kind}, turn {number}, {name}: {times[name][-1]}", file=sys.stderr, flush=True)
        engine, inside = (list(programs.values())[place] for place in (0, -1))
        host, found = engine(turns[-1]), jax.tree.map(np.asarray, inside(turns[-1]))
        tokens = int(found.output_tokens.sum())
        for name, ((first, _), *measured) in times.items():
            walls, cpus = zip(*measured, strict=True)
            wall, spread = statistics.median(walls), f"{min(walls):.2f} to {max(walls):.2f}"
            cells = (f"{first - wall:.1f}", f"{wall:.2f}", spread, f"{statistics.median(cpus):.2f}")
            print(f"| {kind} | {name} | {' | '.join(cells)} | {tokens / wall:,.0f} |", flush=True)
        print_agreement(kind, found, host, [list(case.steps) for case in turns[-1]])
    return 0


def with_engine(prm: ThinkPRM, cases: Sequence[EvaluationCase]) -> Any:
    return prm.predict_correctness_batch([case.problem for case in cases], [list(case.steps) for case in cases])


def split(verify: Callable[..., Any]) -> Callable[..., Any]:
    """The rows over all devices."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    return jax.shard_map(verify, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec("data")),
                         out_specs=PartitionSpec("data"))  # fmt: skip


def lengths_of(prm: ThinkPRM, cases: Sequence[EvaluationCase]) -> Any:
    return token_prompts(prm, [case.problem for case in cases], [list(case.steps) for case in cases]).lengths


def encoded(prm: ThinkPRM, longest: int, cases: Sequence[EvaluationCase]) -> TokenPrompts:
    problems, solutions = [case.problem for case in cases], [list(case.steps) for case in cases]
    return token_prompts(prm, problems, solutions, length=-(-longest // 16) * 16, max_steps=MOST_STEPS)


def inside_jit(verify: Any, params: VerifierParams, encode: Any, cases: Sequence[EvaluationCase]) -> Any:
    """With the encoding on the host, which is part of what a training step has to wait for."""
    return verify(params, encode(cases))


def print_agreement(kind: str, found: Any, host: list[dict[str, Any]], solutions: list[list[str]]) -> None:
    rows = range(len(host))
    labels = sum(found.step_labels[i, : len(solutions[i])].tolist() == host[i]["step_labels"][0] for i in rows)
    apart = max(abs(float(found.prefix_score[i]) - host[i]["prefix_score"]) for i in rows)
    tokens = found.output_tokens
    print(f"{kind}: {labels} of {len(host)} equal labels, scores at most {apart:.1e} apart, {found.covered.sum()} "
          f"covered; {tokens.min()} to {tokens.max()} tokens a chain", file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
