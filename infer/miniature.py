"""`thinkprm miniature`: the paper's questions about search and verifier compute, asked of the bundled models.

    solutions/           the solver's solutions of held-out problems of the arithmetic task
    best_of_n/           the same solutions judged by each verifier
    beam_search/, dvts/  searches that each verifier guides
    verifier_compute/    solutions of other problems, judged with 1 to 8 chains and with 1 to 4 rounds

Each is an ordinary run of `thinkprm search` or `thinkprm evaluate`; what they found together is in results.md,
results.json and the pictures. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thinkprm_jax import program
from thinkprm_jax.errors import UserError
from thinkprm_jax.infer.search import search
from thinkprm_jax.paths import check_local, check_output_folder
from thinkprm_jax.seeds import check_seeds

if TYPE_CHECKING:
    from thinkprm_jax.miniature.clock import StageClock
    from thinkprm_jax.miniature.findings import MiniatureFindings
    from thinkprm_jax.miniature.stages import MiniatureStage
    from thinkprm_jax.miniature.study import MiniaturePlan, MiniatureSize

ABOUT = """\
Asks small models on a synthetic task those questions of the ThinkPRM paper that need no training: accuracy against
N for best-of-N, beam search and DVTS; verifier compute, chains against rounds; calibration. Everything comes with
its 95% interval and its n. docs/miniature.md says what each part asks."""
MORE = """\
It takes 13 minutes on two CPU cores, --quick two. A run that was stopped goes on from where it
was; with more --problems or --cases it goes on from what there is. Exit status: 0 done; 1 some solutions got no
verdict (they count as wrong); 2 bad usage."""


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    from thinkprm_jax.miniature.clock import StageClock
    from thinkprm_jax.miniature.findings import read_findings
    from thinkprm_jax.miniature.stages import plan_stages
    from thinkprm_jax.runtime import enable_compilation_cache

    # What is asked of which models, as a list of runs
    plan = make_plan(options)
    stages = plan_stages(plan)

    # The runs; those that are done already only look through their rows
    enable_compilation_cache()
    clock = StageClock(plan.folder / "stages.json", stages, say)
    status = 0
    for stage in stages:
        with clock.running(stage):
            status = max(status, stage.run(search))

    # What they found together
    say(f"reading {len(stages)} runs: figures, intervals, pictures")
    findings = read_findings(plan, stages)
    write(findings, plan, stages, clock)
    show(findings, plan, clock)
    return status


def write(
    findings: MiniatureFindings, plan: MiniaturePlan, stages: Sequence[MiniatureStage], clock: StageClock
) -> None:
    """results.json, results.md and the pictures."""
    from thinkprm_jax.miniature.findings import figures_of
    from thinkprm_jax.miniature.presentation import page, pictures
    from thinkprm_jax.records.files import atomic_write, write_json
    from thinkprm_jax.views.plots import save_figure

    results = {
        "command": plan.command,
        "generator": plan.generator,
        "verifiers": plan.verifiers,
        "seed": plan.seed,
        "size": dataclasses.asdict(plan.size),
        "machine": machine(),
        "seconds": round(clock.seconds, 1),
        "stages": clock.as_rows(),
        "figures": [figure.as_dict(plan.seed) for figure in figures_of(findings, plan, stages)],
    }
    write_json(plan.folder / "results.json", results)
    for name, (panels, columns) in pictures(findings).items():
        save_figure(plan.folder / name, panels, columns=columns)
    text = page(findings, about(plan, clock), clock.table())
    atomic_write(plan.folder / "results.md", text)


def about(plan: MiniaturePlan, clock: StageClock) -> list[str]:
    """What a reader must know before the figures."""
    from thinkprm_jax.miniature.clock import duration
    from thinkprm_jax.miniature.study import SPLIT, VERIFIERS

    size = plan.size
    searched = f"{size.problems:,} problems are searched"
    judged = f"{size.cases:,} solutions of others are judged for verifier compute"
    return [
        f"`{plan.command}`",
        f"{duration(clock.seconds)} minutes for the stages, on {machine()}",
        f"task: arithmetic, split `{SPLIT}` (kept out of training), seed {plan.seed}; {searched}, {judged}",
        f"solver: `{plan.generator}`, temperature 0.8",
        *(f"verifier `{name}`: {VERIFIERS.get(model, model)}" for name, model in plan.verifiers.items()),
        "intervals: 95%, bootstrap over problems; gains: paired, on the same problems or solutions",
    ]


def machine() -> str:
    """What the times are of."""
    import jax

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    host = f"{cores} CPU cores ({platform.machine()})"
    device = jax.devices()[0]
    return host if device.platform == "cpu" else f"{jax.device_count()} x {device.device_kind}, {host}"


def show(findings: MiniatureFindings, plan: MiniaturePlan, clock: StageClock) -> None:
    """All tables, and where the files are."""
    from thinkprm_jax.miniature.clock import duration
    from thinkprm_jax.miniature.presentation import HEADINGS, QUESTIONS, tables
    from thinkprm_jax.views.terminal import show_report

    for question, heading in HEADINGS.items():
        items = [part for pair in tables(findings, question) for part in pair]
        show_report([heading.upper(), QUESTIONS[question]], items)
        print()
    print(f"{duration(clock.seconds)} minutes of stages; {plan.folder / 'results.md'} has pictures and commands")


def make_plan(options: argparse.Namespace) -> MiniaturePlan:
    """What the options ask for.

    Raises:
      UserError: they cannot work; said before anything is written.
    """
    from thinkprm_jax.checkpoint.weights import find_model
    from thinkprm_jax.miniature.study import SIZES, MiniaturePlan

    size: MiniatureSize = SIZES["quick" if options.quick else "full"]
    for name in ("problems", "cases"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}, it must be at least 1")
        size = size if value is None else dataclasses.replace(size, **{name: value})
    verifiers: dict[str, str] = {}
    for text in options.verifiers:
        name, equals, model = text.partition("=")
        if not equals:
            name, model = Path(text).name, text
        if not name or "/" in name or name in verifiers:
            raise UserError(f"--verifiers {text}: each verifier needs a name of its own, write NAME=MODEL")
        verifiers[name] = model
    for model in (options.generator, *verifiers.values()):
        find_model(model)
    place = options.output or ("runs/miniature_quick" if options.quick else "runs/miniature")
    check_local(place)  # its stages are processes that share a folder
    folder = Path(place)
    check_output_folder(folder)
    plan = MiniaturePlan(folder, options.generator, verifiers, size, options.seed)
    try:
        check_seeds(plan, "seed", "case_seed")
    except ValueError as error:
        raise UserError(f"--seed {options.seed}: {error}") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be made: {error.strerror}") from error
    return plan


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    from thinkprm_jax.miniature.study import GENERATOR, VERIFIERS

    parser = argparse.ArgumentParser(
        prog="thinkprm miniature",
        description=ABOUT,
        epilog=MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--output", metavar="FOLDER", help="default: runs/miniature, with --quick runs/miniature_quick")
    add("--quick", action="store_true", help="a small one, to see it work: its intervals say how little it shows")
    add("--problems", type=int, metavar="P", help="that are searched")
    add("--cases", type=int, metavar="C", help="solutions that verifier compute is measured on")
    add("--generator", default=GENERATOR, metavar="MODEL", help=f"(default: {GENERATOR})")
    help = f"to compare, the first with each other one (default: {' '.join(VERIFIERS)})"
    add("--verifiers", nargs="+", default=list(VERIFIERS), metavar="[NAME=]MODEL", help=help)
    add("--seed", type=int, default=0, help="draws the problems, the solutions and the chains (default: 0)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    program.start(main, "thinkprm miniature")
