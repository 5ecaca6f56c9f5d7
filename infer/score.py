"""`thinkprm score`: solutions in, verdicts out.

Each input row becomes one output row: all its fields, `verdict` (or `verdicts`, one for each of its `completions`)
and `verifier`, the settings that made it. A verdict holds prefix_score, step_scores (means over the chains),
step_labels, the chains themselves, and the steps where a whole solution was split; or `error` alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinkprm_jax import program
from thinkprm_jax.data.jsonl import OrderedOutput
from thinkprm_jax.data.solutions import SolutionRow, read_solutions
from thinkprm_jax.errors import UserError

if TYPE_CHECKING:
    from thinkprm_jax.verifier.thinkprm import ThinkPRM, Verdict

RESERVED = ("verdict", "verdicts", "verifier")
ABOUT = """\
Judges solutions of maths problems: writes a verification chain for each, reads a verdict and a score for every
step, and the probability that the whole solution is correct."""
MORE = """\
input: one JSON object a line with `problem` (or `question`) and `steps` (a list), `completions` (a list of whole
solutions) or `solution` (one whole solution). Rows of ProcessBench and of search-and-learn are taken as they are.

A run that was stopped, even by kill -9, goes on where it was when the same command is given again.
Exit status: 0 done; 1 some solutions could not be judged (the output says why); 2 bad usage or input.

The bundled model `mini` knows whole-number arithmetic in a few steps and nothing else: see
thinkprm_jax/bundled/mini/README.md. For real mathematics give --model launch/ThinkPRM-1.5B, -7B or -14B.

Compiled programs are kept in the user's cache folder: THINKPRM_JAX_CACHE=FOLDER or =off changes that."""


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    # What is wrong with the input is said before anything is loaded or computed.
    rows = read_solutions(bundled_examples() if options.input is None else options.input, RESERVED)
    if options.output and options.input and _is_same_file(options.output, options.input):
        raise UserError(f"{options.output}: is the input")

    from thinkprm_jax.compilation import enable_compilation_cache
    from thinkprm_jax.verifier.report import Report
    from thinkprm_jax.verifier.thinkprm import default_dtype

    enable_compilation_cache()
    options.dtype = options.dtype or default_dtype()
    with OrderedOutput(options.output, [row.row for row in rows], {"verifier": settings(options)}) as output:
        report = Report(rows, output.resumed, options)
        if output.missing:
            with report:
                prm = load(options)
                report.begin(prm)
                score(prm, rows, output, report)
        report.summary()
    return 1 if report.failed else 0


def score(prm: ThinkPRM, rows: Sequence[SolutionRow], output: OrderedOutput, report: Any) -> None:
    """Judges what ``output`` still misses, and gives each row to it once all its solutions are judged."""
    places = [(index, number) for index in output.missing for number in range(len(rows[index].solutions))]
    open_rows = {index: [None] * len(rows[index].solutions) for index in output.missing}
    for index in [index for index, verdicts in open_rows.items() if not verdicts]:
        report.show(output.add(index, {"verdicts": []}))  # a row without completions
    items = ((rows[index].problem, rows[index].solutions[number]) for index, number in places)
    for item, verdict in prm.verify(items):
        index, number = places[item]
        open_rows[index][number] = verdict_fields(verdict, rows[index], number)
        report.judged(verdict)
        if None not in open_rows[index]:
            verdicts = open_rows.pop(index)
            many = rows[index].source == "completions"
            report.show(output.add(index, {"verdicts": verdicts} if many else {"verdict": verdicts[0]}))


def verdict_fields(verdict: Verdict, row: SolutionRow, number: int) -> dict[str, Any]:
    """A verdict as it stands in the output."""
    steps = {} if row.source == "steps" else {"steps": list(row.solutions[number])}
    if verdict.error is not None:
        return {"error": str(verdict.error), **steps}
    return {
        "prefix_score": verdict.prefix_score,
        "step_scores": verdict.step_scores,
        "step_labels": verdict.step_labels,
        **steps,
        "chains": [dataclasses.asdict(chain) for chain in verdict.chains],
    }


def load(options: argparse.Namespace) -> ThinkPRM:
    from thinkprm_jax.verifier.thinkprm import ThinkPRM

    return ThinkPRM(
        options.model,
        max_length=options.max_length,
        temperature=options.temperature,
        n=options.n,
        seed=options.seed,
        n_thinking_rounds=options.rounds,
        multiround_verifier=True,
        decision_temperature=options.decision_temperature,
        max_gen_tokens=options.max_gen_tokens,
        slots=options.slots,
        dtype=options.dtype,
    )


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """All that a verdict depends on, apart from its input."""
    names = ("model", "n", "rounds", "temperature", "seed", "max_length", "max_gen_tokens", "decision_temperature")
    return {name: getattr(options, name) for name in (*names, "dtype")}


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="thinkprm score", description=ABOUT, epilog=MORE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("input", nargs="?", metavar="INPUT.jsonl", help="without it: the bundled examples")
    add("--output", type=Path, metavar="OUT.jsonl", help="one line for each input line, in input order")
    add("--model", default="mini", help="mini (bundled), a Hugging Face folder or id (default: mini)")
    add("--n", type=int, default=1, help="chains a solution; scores are averaged (default: 1)")
    add("--rounds", type=int, default=1, help="thinking rounds a chain (default: 1)")
    add("--temperature", type=float, help="of the chains (default: 0, greedy, for one chain; else 0.6)")
    add("--seed", type=int, default=0)
    add("--max-length", type=int, default=4096, help="longest context, prompt and chain (default: 4096 tokens)")
    add("--max-gen-tokens", type=int, help="tokens a round may think (default: what fits)")
    add("--decision-temperature", type=float, default=1.0, help="of the final Yes against No (default: 1)")
    add("--slots", type=int, default=16, help="chains decoded together (default: 16)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="default: float32 on CPUs, else bfloat16")
    add("--quiet", action="store_true", help="no verdicts and no progress bar on the screen")
    options = parser.parse_args(arguments)
    if options.temperature is None:
        options.temperature = 0.0 if options.n == 1 else 0.6
    if Path(options.model).is_dir():
        options.model = str(Path(options.model).resolve())  # the same folder from wherever the run goes on
    return options


def bundled_examples() -> Path:
    import thinkprm_jax

    return Path(thinkprm_jax.__file__).parent / "bundled" / "examples.jsonl"


def _is_same_file(a: str | Path, b: str | Path) -> bool:
    return os.path.exists(a) and os.path.exists(b) and os.path.samefile(a, b)


if __name__ == "__main__":
    sys.exit(program.run(main, sys.argv[1:], name="thinkprm score"))
