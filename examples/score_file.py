"""Score a file of solutions and list where each goes wrong, the least likely to be correct first.

    python examples/score_file.py [SOLUTIONS.jsonl] [--model MODEL] [--n CHAINS]

A line has `problem` and either `steps` or one whole `solution`. `thinkprm score` does this for large files: it
writes every verdict as it comes and goes on after a stop.
"""

from __future__ import annotations

import argparse
import json
from importlib.resources import files
from pathlib import Path

from thinkprm_jax import ThinkPRM, split_solution


def main() -> None:
    parser = argparse.ArgumentParser(description="Score a file of solutions.")
    parser.add_argument("solutions", nargs="?", default=str(files("thinkprm_jax.bundled") / "examples.jsonl"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--n", type=int, default=1, help="chains a solution")
    options = parser.parse_args()

    rows = [json.loads(line) for line in Path(options.solutions).read_text(encoding="utf-8").splitlines()]
    items = [(row["problem"], row.get("steps") or split_solution(row["solution"])) for row in rows]
    prm = ThinkPRM(options.model, n=options.n)

    judged = []
    for index, verdict in prm.verify(items):  # in the order in which they are ready
        if verdict.error is None:
            judged.append((verdict.prefix_score, index, verdict.first_error))
        else:
            print(f"line {index + 1} could not be judged: {verdict.error}")
    for score, index, error in sorted(judged):
        where = "every step is right" if error < 0 else f"step {error + 1}: {items[index][1][error]}"
        print(f"{score:.3f}  line {index + 1}  {where}")


if __name__ == "__main__":
    main()
