"""Runs that look like real ones, made without a model: to test the report, and to try a page of many problems.

python tests/support/fake_run.py FOLDER --problems 1000 --n 4 --chains 4 --sentences 8
thinkprm report FOLDER
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from thinkprm_jax.search.voting import prediction_columns, select

NAMES = ("Ana", "Hugo", "Mia", "Ivan", "Zoe", "Omar", "Lucy", "Kate")
THINGS = ("boxes", "coins", "apples", "tickets", "marbles", "pages")
FILLER = (
    "Let me recompute this from the statement of the problem.",
    r"We have $\frac{a}{b} \cdot b = a$, so the factor cancels.",
    "That agrees with what the previous step found.",
    "Wait, is the order of the operations right here? Yes, the product comes first.",
    r"In general \(x^2 - y^2 = (x-y)(x+y)\), which is not needed.",
    "So the number in the step is the one that the calculation gives.",
    "Looking at units, the result is a count and has none.",
    "I see no other way to read this sentence.",
)
# Text that must stay text, wherever it appears.
HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    '<img src=x onerror="window.hacked = 2">',
    "<svg onload='window.hacked = 3'>",
    "line\u2028separator\u2029and -->\u0000<!--<script>",
    "\u202eright to left override",
    "{{style}} {{parts}} &lt;b&gt; &#60;",
)


def write_search(
    folder: Path, problems: int = 12, n: int = 4, chains: int = 3, sentences: int = 2, seed: int = 0
) -> Path:
    """The folder of a finished search, with every peculiarity that a run can have."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, verdicts = [], []
    for index in range(problems):
        row, judged = search_rows(random.Random(f"{seed} {index}"), index, n, chains, sentences)
        rows.append(row)
        verdicts.append(judged)
    write_lines(folder / "completions.jsonl", rows)
    write_lines(folder / "verdicts.jsonl", verdicts)
    recipe = {"approach": "best_of_n", "n": n, "model_path": "mini-solver", "prm_path": "mini", "prm_n": chains}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    (folder / "accuracy.json").write_text(json.dumps(accuracy(rows, n)), encoding="utf-8")
    return folder


def search_rows(
    dice: random.Random, index: int, n: int, chains: int, sentences: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A line of completions.jsonl and one of verdicts.jsonl."""
    name, thing = dice.choice(NAMES), dice.choice(THINGS)
    bags, each = dice.randint(2, 9), dice.randint(2, 30)
    problem = (
        f"{name} fills {bags} bags with {each} {thing} each, loses some and counts the rest. How many are left?"
    )
    if index % 5 == 1:
        problem += r" Let $f(x) = \sqrt{x+1}$; what is \(f(3)\)?"
    if index % 5 == 2:
        problem = f"{HOSTILE[index // 5 % len(HOSTILE)]} {problem}"
    made = [solution(dice, index, number, chains, sentences) for number in range(n)]
    answers = [answer for _, _, answer, _ in made]
    scores = [verdict.get("prefix_score") for _, _, _, verdict in made]
    correct = [answer == "42" for answer in answers]
    row = {
        "index": index,
        "problem": problem,
        "answer": "42",
        "level": dice.randint(1, 5),
        "completions": ["\n\n".join(steps) for steps, _, _, _ in made],
        "completion_tokens": [sum(map(len, steps)) // 4 for steps, _, _, _ in made],
        "finish_reasons": [finish for _, finish, _, _ in made],
        "scores": [verdict.get("step_scores", []) for _, _, _, verdict in made],
        "agg_scores": scores,
        "answers": answers,
        "correct": correct,
        "pred": made[0][0][-1],
        "tokens": {"generated": 100 * n, "verifier": 200 * n, "verifications": n, "rounds": 1},
        **prediction_columns(select(answers, answers, scores, correct)),
    }
    return row, {"index": index, "verdicts": [verdict for _, _, _, verdict in made]}


def solution(
    dice: random.Random, index: int, number: int, chains: int, sentences: int
) -> tuple[list[str], str, str | None, dict[str, Any]]:
    """(steps, finish reason, answer, verdict)."""
    count = dice.randint(2, 6)
    truth = dice.choice([-1, -1, *range(count)])
    steps = [f"We compute {step + 2} * {number + 3} = {(step + 2) * (number + 3)}." for step in range(count - 1)]
    answer = "42" if truth < 0 else str(dice.randint(3, 6))
    steps.append(f"The answer is \\boxed{{{answer}}}.")
    if index % 5 == 3 and number == 0:
        steps[0] += f" {HOSTILE[index // 5 % len(HOSTILE)]}"
    if dice.random() < 0.03:
        return steps, "stop", answer, {"error": "the prompt has 5,000 tokens: no room for a chain", "steps": steps}
    cut = dice.random() < 0.05
    verdict = verdict_row(dice, steps, truth, chains, sentences)
    return steps, "length" if cut else "stop", None if cut else answer, verdict


def verdict_row(
    dice: random.Random, steps: Sequence[str], truth: int, chains: int, sentences: int
) -> dict[str, Any]:
    """A verdict whose chains mostly find the first error; a tenth of the verdicts is led astray."""
    astray = dice.random() < 0.1
    made = []
    for _ in range(chains):
        found = truth if dice.random() > (0.6 if astray else 0.08) else dice.choice([-1, *range(len(steps))])
        made.append(chain_row(dice, steps, found, sentences))
    labels = [int(2 * sum(chain["step_labels"][step] for chain in made) > chains) for step in range(len(steps))]
    if 0 in labels:
        labels[labels.index(0) :] = [0] * (len(steps) - labels.index(0))
    return {
        "prefix_score": sum(chain["prefix_score"] for chain in made) / chains,
        "step_scores": [sum(chain["step_scores"][step] for chain in made) / chains for step in range(len(steps))],
        "step_labels": labels,
        "steps": list(steps),
        "chains": made,
    }


def chain_row(dice: random.Random, steps: Sequence[str], found: int, sentences: int) -> dict[str, Any]:
    """One chain; found: the first error it names. Some leave out a verdict, which is then forced; some are cut."""
    last = len(steps) - 1 if found < 0 else found
    skipped = dice.randrange(last + 1) if last and dice.random() < 0.08 else None
    text, scores = ["Let's verify step by step:"], [0.0] * len(steps)
    for step in range(last + 1):
        label = step != found
        scores[step] = round(1 - dice.random() ** 3 / 2 if label else dice.random() ** 3 / 2, 6)
        said = " ".join(dice.choices(FILLER, k=sentences))
        verdict = "" if step == skipped else f" The step is \\boxed{{{'correct' if label else 'incorrect'}}}"
        text.append(f"Step {step + 1}: {steps[step]} {said}{verdict}")
    cut = dice.random() < 0.04
    score = round(min(scores[: last + 1]), 6)
    decision = "Yes" if score >= 0.5 else "No"
    return {
        "output": "\n\n".join(text) + f"\n</think>\nIs the solution correct? {decision}",
        "prefix_score": score,
        "step_labels": [int(found < 0 or step < found) for step in range(len(steps))],
        "step_scores": scores,
        "step_forced": [step == skipped for step in range(len(steps))],
        "finish_reason": "length" if cut else "stop",
        "output_tokens": sum(map(len, text)) // 4,
    }


def accuracy(rows: Sequence[dict[str, Any]], n: int) -> dict[str, Any]:
    """accuracy.json, with intervals that are only roughly right."""
    by_n: dict[str, dict[str, dict[str, float]]] = {}
    for size in (2**power for power in range(n.bit_length())):
        by_n[str(size)] = {}
        for method, column in (("naive", "naive"), ("weighted", "weighted"), ("majority", "maj")):
            hits = sum(row[f"pred_{column}@{size}"] == r"\boxed{42}" for row in rows)
            by_n[str(size)][method] = _estimate(hits, len(rows))
        by_n[str(size)]["pass"] = _estimate(sum(any(row["correct"][:size]) for row in rows), len(rows))
    return {"n": len(rows), "by_n": by_n, "seconds": 1.0}


def _estimate(hits: int, n: int) -> dict[str, float]:
    value = hits / n
    half = 1.96 * (value * (1 - value) / n) ** 0.5
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half), "n": n}


def details_rows(problems: int = 12, chains: int = 3, seed: int = 0) -> list[dict[str, Any]]:
    """Lines of the details of `thinkprm evaluate`."""
    rows = []
    for index in range(problems):
        dice = random.Random(f"{seed} {index}")
        steps, _, answer, verdict = solution(dice, index, 0, chains, 1)
        truth = -1 if answer == "42" else dice.randrange(len(steps))
        labels = verdict.get("step_labels")
        predicted = None if labels is None else labels.index(0) if 0 in labels else -1
        outcome = {"first_error": truth, "predicted": predicted, "score": verdict.get("prefix_score")}
        outcome |= {"readable": chains, "chains": chains, "steps_right": 1, "steps_counted": 1, "tokens": 9}
        groups = {"family": dice.choice(["running", "shop"])}
        row = {"index": index, "problem": f"Problem of {dice.choice(NAMES)}", "steps": steps, "label": truth}
        row |= {"groups": groups, "outcome": outcome, "verdict": verdict, "verifier": {"model": "mini"}}
        rows.append(row)
    return rows


def score_rows(problems: int = 6, chains: int = 2, seed: int = 0) -> list[dict[str, Any]]:
    """Lines of the output of `thinkprm score`."""
    kept = ("problem", "steps", "label", "verdict", "verifier")
    rows = details_rows(problems, chains, seed)
    return [{"id": f"row-{row['index']}", **{name: row[name] for name in kept}} for row in rows]


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, default in (("problems", 1000), ("n", 4), ("chains", 4), ("sentences", 4), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, help="(default: %(default)s)")
    options = vars(parser.parse_args())
    print(write_search(options.pop("folder"), **options))
