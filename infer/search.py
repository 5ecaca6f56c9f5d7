"""`thinkprm search RECIPE [field=value ...]`: best-of-N, beam search and DVTS, guided by a verifier.

The run lives in the recipe's ``output_dir``: recipe.yaml (resolved), completions.jsonl (solutions, scores,
answers, predictions), verdicts.jsonl (what the verifier said of each), accuracy.json, accuracy.png and
accuracy.svg. Started again with the same recipe, it goes on where it was, problem by problem, even after kill -9.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from thinkprm_jax import program

DESCRIPTION = (
    "Searches solutions of problems with a generator and a verifier: best-of-N, beam search or DVTS. Recipes have "
    "the fields of search-and-learn's. The run lives in the recipe's output_dir; started again with the same "
    "recipe, it goes on where it was. docs/search.md lists the fields."
)
STATUS = "Exit status: 0 done; 1 some problems have no solution or no verdict (named in the output); 2 bad usage."


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="thinkprm search", description=DESCRIPTION, epilog=STATUS)
    parser.add_argument("recipe", help="a YAML file, such as configs/search/mini_best_of_n.yaml")
    parser.add_argument("overrides", nargs="*", metavar="field=value", help="such as n=8 output_dir=runs/try")
    arguments = parser.parse_args(argv)

    from thinkprm_jax.evaluation.selection.search_report import finish_search
    from thinkprm_jax.search.recipe import load_search_recipe
    from thinkprm_jax.search.running import run_search

    recipe = load_search_recipe(arguments.recipe, arguments.overrides)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a preemption notice stops like Ctrl-C
    speed = run_search(recipe)
    return finish_search(recipe, speed)


if __name__ == "__main__":
    sys.exit(program.run(main, sys.argv[1:], name="thinkprm search"))
