"""Generative against discriminative verifier at 1x, 10x and all labels: equal base, about equal training tokens.

    python benchmarks/label_efficiency.py runs/label_efficiency --picture docs/images/label_efficiency

The base is the bundled verifier, on wordings that it has not seen. For each seed, which draws the solutions and
the order of training, and for each number of labelled solutions: `thinkprm train` on their chains (generative) or
on their step labels alone (discriminative), `thinkprm export`, `thinkprm evaluate arithmetic --split unseen`,
greedy, on problems none of which was trained on. What an earlier call has finished is not done again. Every
command is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECIPE = "configs/results/label_efficiency.yaml"
# Labelled solutions -> task -> epochs: a solution has about 2.6 times as many tokens with its chain as without.
EPOCHS = {100: (4, 10), 1_000: (2, 5), 10_000: (1, 3)}
TASKS = ("generative", "discriminative")
FIGURES = ("first_error_f1", "binary_f1", "auroc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--solutions", type=int, nargs="+", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[31, 32, 33])
    parser.add_argument("--evaluation-seed", type=int, default=99)
    parser.add_argument("--problems", type=int, default=1000, help="of the evaluation (default: 1000)")
    parser.add_argument("--picture", type=Path, help="without suffix: PNG and SVG are written")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    start = evaluate(options, "mini", options.folder / "start.json")
    runs = []
    for solutions in options.solutions:
        for seed in options.seeds:
            data = write_solutions(options, seed, solutions)
            for task, epochs in zip(TASKS, EPOCHS[solutions], strict=True):
                runs.append(measure(options, task, solutions, seed, epochs, data))
    results = {"start": start, "runs": runs}
    (options.folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    show(results)
    if options.picture is not None:
        draw(results, options.picture)


def thinkprm(*arguments: object) -> None:
    command = [sys.executable, "-m", "thinkprm_jax.cli", *map(str, arguments)]
    print("$ thinkprm", *command[3:], flush=True)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def write_solutions(options: argparse.Namespace, seed: int, count: int) -> Path:
    """The first ``count`` examples of the seed whose problem is not in the evaluation, as rows of chains."""
    from thinkprm_jax.arithmetic.task import example

    path = options.folder / f"solutions_{seed}_{count}.jsonl"
    if path.exists():
        return path
    judged = {example(options.evaluation_seed, index, "unseen").problem for index in range(options.problems)}
    rows: list[str] = []
    index = 0
    while len(rows) < count:
        chain = example(seed, index, "unseen")
        index += 1
        if chain.problem in judged:
            continue
        row = {
            "problem": chain.problem,
            "prefix_steps": chain.steps,
            "cot": chain.chain,
            "gt_step_labels": ["+" if label else "-" for label in chain.labels],
            "prefix_label": chain.correct,
        }
        rows.append(json.dumps(row) + "\n")
    path.write_text("".join(rows), encoding="utf-8")
    return path


def measure(
    options: argparse.Namespace, task: str, solutions: int, seed: int, epochs: int, data: Path
) -> dict[str, Any]:
    """One training and its evaluation."""
    run = (options.folder / f"{task}_{solutions}_{seed}").resolve()
    if not (run / "exported").exists():
        changes = f"output={run}", f"data.train.chains={data.resolve()}", f"seed={seed}"
        thinkprm("train", RECIPE, *changes, f"task={task}", f"epochs={epochs}")
        thinkprm("export", run, run / "exported")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = max(line["step"] for line in lines)
    labels = sum(len(json.loads(line)["gt_step_labels"]) for line in data.read_text().splitlines())
    return {
        "task": task,
        "solutions": solutions,
        "labels": labels,
        "epochs": epochs,
        "steps": steps,
        "seed": seed,
        **evaluate(options, str(run / "exported"), run / "evaluation.json"),
    }


def evaluate(options: argparse.Namespace, model: str, output: Path) -> dict[str, Any]:
    if not output.exists():
        which = "--split", "unseen", "--seed", options.evaluation_seed, "--problems", options.problems
        path = model if model == "mini" else Path(model).resolve()
        thinkprm("evaluate", "arithmetic", *which, "--model", path, "--output", output.resolve())
    figures = json.loads(output.read_text())["figures"]
    return {"evaluation": str(output), "figures": {name: figures[name] for name in FIGURES}}


def show(results: dict[str, Any]) -> None:
    def line(name: str, figures: dict[str, Any]) -> None:
        shown = (f"{f['value']:.3f} ({f['low']:.3f} to {f['high']:.3f})" for f in figures.values())
        print(f"{name:<40}", *shown, sep="  ")

    print("", *FIGURES, sep="  ")
    line("before", results["start"]["figures"])
    for run in results["runs"]:
        line(f"{run['task']} {run['solutions']:,} seed {run['seed']} ({run['steps']} steps)", run["figures"])
    for solutions, task, values in groups(results["runs"], FIGURES[0]):
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{task} {solutions:,}: mean {statistics.mean(values):.3f}, deviation over seeds {spread:.3f}")


def groups(runs: Sequence[dict[str, Any]], figure: str) -> list[tuple[int, str, list[float]]]:
    keys = sorted({(run["solutions"], run["task"]) for run in runs})
    return [
        (
            solutions,
            task,
            [
                run["figures"][figure]["value"]
                for run in runs
                if (run["solutions"], run["task"]) == (solutions, task)
            ],
        )
        for solutions, task in keys
    ]


def draw(results: dict[str, Any], picture: Path) -> None:
    """Means over the seeds with the range of the seeds; the base before training as a level line."""
    from thinkprm_jax.evaluation.intervals import Estimate
    from thinkprm_jax.evaluation.panels import Curve, CurvesPanel, Panel
    from thinkprm_jax.views.plots import save_figure

    panels: list[Panel] = []
    for figure in FIGURES[:2]:
        curves = []
        for task in TASKS:
            points = [
                (float(solutions), Estimate(statistics.mean(values), min(values), max(values), len(values)))
                for solutions, found, values in groups(results["runs"], figure)
                if found == task
            ]
            curves.append(Curve(task, points))
        start = Estimate(**results["start"]["figures"][figure])
        ends = [(points[0][0], start), (points[-1][0], start)]
        curves.append(Curve("base", ends, reference=True))
        panels.append(
            CurvesPanel(curves, x_label="labelled solutions (log scale)", y_label=figure, x_scale="log10")
        )
    picture.parent.mkdir(parents=True, exist_ok=True)
    save_figure(picture, panels)


if __name__ == "__main__":
    main()
