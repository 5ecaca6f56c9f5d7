"""`thinkprm search RECIPE [field=value ...]`: best-of-N, beam search and DVTS, guided by a verifier.

The run lives in the recipe's ``output_dir``: recipe.yaml (resolved), completions.jsonl (solutions, scores,
answers, predictions), verdicts.jsonl (what the verifier said of each), accuracy.json, accuracy.png and
accuracy.svg. Started again with the same recipe, it goes on where it was, even after kill -9. Several processes
share one folder: each searches parts of the problems.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from thinkprm_jax import program
from thinkprm_jax.storage import Location

if TYPE_CHECKING:
    from thinkprm_jax.evaluation.selection.search_report import SearchReport
    from thinkprm_jax.records.job import Sharing
    from thinkprm_jax.search.recipe import SearchRecipe

DESCRIPTION = (
    "Searches solutions of problems with a generator and a verifier: best-of-N, beam search or DVTS. Recipes have "
    "the fields of search-and-learn's. The run lives in the recipe's output_dir; started again with the same "
    "recipe, it goes on where it was. docs/search.md lists the fields."
)
MOST_FAILURES = 10  # problems that are named one by one
STATUS = (
    "Several processes share one output_dir: the same command in each. Exit status: 0 done; 1 some problems have "
    "no solution or no verdict (named in the output); 2 bad usage; 3 other processes hold what is missing."
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="thinkprm search", description=DESCRIPTION, epilog=STATUS)
    parser.add_argument("recipe", help="a YAML file, such as configs/search/mini_best_of_n.yaml")
    parser.add_argument("overrides", nargs="*", metavar="field=value", help="such as n=8 output_dir=runs/try")
    from thinkprm_jax.distributed.mesh_option import OPTION, check_mesh
    from thinkprm_jax.recipe import plain_overrides
    from thinkprm_jax.records.job import MISSING
    from thinkprm_jax.views.sharing import VALUES, add_sharing_options, chosen_sharing

    help = "devices of both models, such as data=2,tensor=4, or auto (default: the recipe's mesh)"
    parser.add_argument(OPTION, metavar="AXES", help=help)
    add_sharing_options(parser, parts="`wave` problems")
    arguments = plain_overrides(sys.argv[1:] if argv is None else argv, [OPTION, *VALUES])
    options = parser.parse_intermixed_args(arguments)
    check_mesh(options.mesh)
    sharing = chosen_sharing(options)

    from thinkprm_jax.search.recipe import load_search_recipe
    from thinkprm_jax.views.terminal import show_report

    recipe = load_search_recipe(options.recipe, options.overrides)
    found = search(recipe, options.mesh, sharing)
    if found is None:
        return MISSING
    show_report(found.report.lines, found.report.tables)
    return int(bool(found.failures))


def search(recipe: SearchRecipe, mesh: str | None = None, sharing: Sharing | None = None) -> SearchReport | None:
    """Searches what the recipe's folder does not hold yet, and writes what was found into it.

    Args:
      mesh: in place of the recipe's. sharing: how this process takes part where others search, too.
    Returns: None where others hold what is missing, which is said.
    """
    from thinkprm_jax.evaluation.selection.search_report import read_search
    from thinkprm_jax.search.models import describe, load_models, resolve, stamp_models
    from thinkprm_jax.search.problems import load_tasks
    from thinkprm_jax.search.rows import has_begun
    from thinkprm_jax.search.runner import open_search, search_tasks

    # Problems
    tasks = load_tasks(recipe)

    resolved = resolve(recipe)
    if resolved.prm_path != recipe.prm_path:
        print(f"the recipe has no prm_path: the verifier is {resolved.prm_path}", file=sys.stderr)
    if resolved.verified and not has_begun(resolved.folder):
        describe(resolved)  # what cannot work leaves no folder behind
    with open_search(resolved, tasks, sharing) as run:
        if run.has_work():
            # Generator and verifier, side by side
            run.stamp(stamp_models(resolved, tasks))
            run.phase("loading the models")
            engine = load_models(resolved, tasks, run.say, mesh)
            run.watch(engine)

            # Wave by wave; a problem's rows are written when it is finished, and until then what there is of it
            for index, result in search_tasks(resolved, tasks, run.waves(), run.keeping(engine)):
                run.add(index, result)
        speed, missing = run.speed(), run.finish()
    if missing:
        print(f"thinkprm search: {missing}", file=sys.stderr)
        return None

    # What was found
    found = read_search(recipe, speed)
    save(recipe.folder, found)
    return found


def save(folder: Location, found: SearchReport) -> None:
    """accuracy.json, accuracy.png and accuracy.svg; what failed is named on stderr."""
    from thinkprm_jax.records.search_folder import ACCURACY
    from thinkprm_jax.views.output import FigureOutput

    FigureOutput(json=str(folder / ACCURACY), plots=folder / "accuracy").save(found.report)
    left = len(found.failures) - MOST_FAILURES
    for line in [*found.failures[:MOST_FAILURES], *([f"and {left} more"] if left > 0 else [])]:
        print(f"thinkprm search: {line}", file=sys.stderr)


if __name__ == "__main__":
    program.start(main, "thinkprm search")
