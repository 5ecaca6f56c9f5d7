"""Fine-tune a verifier on chains of your own, export it, and judge a solution with it.

    python examples/train_on_own_chains.py [FOLDER]

Eight steps on the bundled verifier, to show the files and the calls. A real run differs in its numbers and its
chains only: configs/train has the recipes of the paper, and the chains may be an id on the Hugging Face Hub.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from thinkprm_jax import ThinkPRM
from thinkprm_jax.cli import main as thinkprm

# One row a chain: the steps that were judged, what the verifier should write about them, and the truth.
RIGHT, WRONG = r"The step is \boxed{correct}", r"The step is \boxed{incorrect}"
CHAINS = [
    {
        "problem": f"A shelf holds {a} books. {b} more arrive. How many books are there?",
        "prefix_steps": [f"{a} + {b} = {a + b + wrong}."],
        "cot": f"Step 1: {a} + {b} is {a + b}. The step says {a + b + wrong}. {WRONG if wrong else RIGHT}",
        "gt_step_labels": ["-" if wrong else "+"],
        "prefix_label": wrong == 0,
    }
    for a, b, wrong in [(12, 5, 0), (31, 8, 1), (40, 22, 0), (17, 9, 10), (63, 4, 0), (25, 25, 1), (8, 70, 0)]
]

RECIPE = """\
output: {folder}/run
steps: 8
model: {{pretrained: mini, dtype: float32}}
data:
  train: {{chains: {folder}/chains.jsonl}}
  buckets: [256]
  rows: 4
optimizer: {{learning_rate: 1.0e-4, schedule: linear}}
log_every: 4
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune on chains of your own.")
    parser.add_argument("folder", nargs="?", default="runs/own_chains", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)

    (folder / "chains.jsonl").write_text("".join(json.dumps(chain) + "\n" for chain in CHAINS))
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    # The commands `thinkprm train` and `thinkprm export`. The first goes on where it was, if it was stopped.
    for command in (["train", f"{folder}/recipe.yaml"], ["export", f"{folder}/run", f"{folder}/model"]):
        if status := thinkprm(command):
            raise SystemExit(status)

    prm = ThinkPRM(folder / "model")
    [result] = prm.predict_correctness_batch([CHAINS[1]["problem"]], [CHAINS[1]["prefix_steps"]])
    print(f"score {result['prefix_score']:.3f}\n{result['outputs'][0]}")


if __name__ == "__main__":
    main()
