"""Do filtered chains train a better verifier? The bundled model teaches itself, on wordings that it has not seen.

    python benchmarks/filtered_chains.py runs/results --picture docs/images/filtered_chains.png

For each seed: `thinkprm collect` once, its generations filtered in three ways to sets of one size; `thinkprm
train`
from the bundled model on each; `thinkprm evaluate arithmetic --split unseen` on problems of another seed, greedy.
What an earlier call has finished is not done again. Every command is printed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RECIPE = "configs/results/collect_unseen.yaml"
FILTERS = ("none", "outcome", "process")
NAMES = {"none": "unfiltered", "outcome": "outcome filter", "process": "process filter"}
T_QUANTILES = {3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}  # 97.5%, by the number of seeds
FIGURES = {"first_error_f1": "first-error F1", "step_accuracy": "step verdicts right"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[11, 12, 15, 16, 18], help="of the problems collected on"
    )
    parser.add_argument("--evaluation-seed", type=int, default=99)
    parser.add_argument("--problems", type=int, default=1000, help="of the evaluation (default: 1000)")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    check_apart(options)
    options.folder.mkdir(parents=True, exist_ok=True)
    results = {"start": evaluate(options, "mini", options.folder / "start.json"), "runs": []}
    for seed in options.seeds:
        collect(options, seed)
        for labels in FILTERS:
            run = options.folder / f"trained_{seed}_{labels}"
            if not (run / "exported").exists():
                train(run, options.folder / f"chains_{seed}_{labels}.jsonl", seed)
            figures = evaluate(options, str(run / "exported"), run / "evaluation.json")
            report = json.loads((options.folder / f"report_{seed}_{labels}.json").read_text())
            results["runs"].append({"seed": seed, "filter": labels, "report": report, **figures})
    (options.folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    show(results)
    differences(results)
    if options.picture is not None:
        draw(results, options)


def thinkprm(*arguments: object) -> None:
    command = [sys.executable, "-m", "thinkprm_jax.cli", *map(str, arguments)]
    print("$ thinkprm", *command[3:], flush=True)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def collect(options: argparse.Namespace, seed: int) -> None:
    """chains_SEED_FILTER.jsonl and report_SEED_FILTER.json, from one set of generations."""
    run = (options.folder / f"collected_{seed}").resolve()
    for labels in FILTERS:
        chains = options.folder / f"chains_{seed}_{labels}.jsonl"
        if chains.exists():
            continue
        changes = f"output={run}", f"source.arithmetic.seed={seed}", f"filter.labels={labels}"
        thinkprm("collect", RECIPE, *changes)
        shutil.copy(run / "report.json", options.folder / f"report_{seed}_{labels}.json")
        shutil.copy(run / "chains.jsonl", chains)


def check_apart(options: argparse.Namespace) -> None:
    """No problem of the evaluation may be among those collected on."""
    from thinkprm_jax.arithmetic.task import example

    recipe = yaml.safe_load((ROOT / RECIPE).read_text(encoding="utf-8"))
    drawn = range(recipe["source"]["arithmetic"]["examples"])
    judged = {example(options.evaluation_seed, index, "unseen").problem for index in range(options.problems)}
    for seed in options.seeds:
        shared = sum(example(seed, index, "unseen").problem in judged for index in drawn)
        if shared:
            sys.exit(f"seed {seed}: {shared} of its problems are in the evaluation too; choose other seeds")


def train(run: Path, chains: Path, seed: int) -> None:
    changes = f"output={run.resolve()}", f"data.train.chains={chains.resolve()}", f"seed={seed}"
    thinkprm("train", "configs/results/fine_tune_mini.yaml", *changes)
    thinkprm("export", run.resolve(), (run / "exported").resolve())


def evaluate(options: argparse.Namespace, model: str, output: Path) -> dict[str, Any]:
    if not output.exists():
        which = "--split", "unseen", "--seed", options.evaluation_seed, "--problems", options.problems
        path = model if model == "mini" else Path(model).resolve()
        thinkprm("evaluate", "arithmetic", *which, "--model", path, "--output", output.resolve())
    return {"figures": json.loads(output.read_text())["figures"]}


def show(results: dict[str, Any]) -> None:
    rows = [("start", "", results["start"])]
    rows += [(NAMES[run["filter"]], run["seed"], run) for run in results["runs"]]
    for name, seed, run in rows:
        figures = [run["figures"][field] for field in (*FIGURES, "acc_error", "acc_correct", "readable_chains")]
        print(
            f"{name:<16}{seed!s:>4}", *(f"{f['value']:.3f} ({f['low']:.3f} to {f['high']:.3f})" for f in figures)
        )


def differences(results: dict[str, Any]) -> None:
    """What each filter gains over no filter: the mean over the seeds, with a 95% t interval over the seeds."""
    values = {(run["filter"], run["seed"]): run["figures"]["first_error_f1"]["value"] for run in results["runs"]}
    seeds = sorted({seed for _, seed in values})
    for labels in FILTERS:
        mean = statistics.mean(values[labels, seed] for seed in seeds)
        gains = [values[labels, seed] - values["none", seed] for seed in seeds]
        line = f"{NAMES[labels]:<16} mean first-error F1 {mean:.3f}"
        if labels != "none" and len(seeds) in T_QUANTILES:
            half = T_QUANTILES[len(seeds)] * statistics.stdev(gains) / len(seeds) ** 0.5
            gain = statistics.mean(gains)
            line += f", over unfiltered {gain:+.3f} ({gain - half:+.3f} to {gain + half:+.3f})"
            line += f", seeds: {', '.join(f'{gain:+.3f}' for gain in gains)}"
        print(line)


def draw(results: dict[str, Any], options: argparse.Namespace) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    colours = {"none": "#bbbbbb", "outcome": "#ccbb44", "process": "#4477aa"}
    for axes, (field, title) in zip(figure.subplots(1, 2), FIGURES.items(), strict=True):
        start = results["start"]["figures"][field]
        axes.axhspan(start["low"], start["high"], color="#eeeeee", zorder=0)
        axes.axhline(start["value"], color="#555555", linestyle="--", linewidth=1, label="before fine-tuning")
        for place, labels in enumerate(FILTERS):
            found = [run["figures"][field] for run in results["runs"] if run["filter"] == labels]
            mean = sum(value["value"] for value in found) / len(found)
            axes.plot([place - 0.3, place + 0.3], [mean, mean], color=colours[labels], linewidth=4)
            for offset, value in enumerate(found):
                x = place + 0.16 * (offset - (len(found) - 1) / 2)
                spread = [[value["value"] - value["low"]], [value["high"] - value["value"]]]
                axes.errorbar(x, value["value"], spread, fmt="o", color="black", markersize=4, linewidth=1)
        axes.set_xticks(range(len(FILTERS)), [NAMES[labels] for labels in FILTERS])
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right", fontsize=8)
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.picture, dpi=110)


if __name__ == "__main__":
    main()
