"""What a search found, from the rows it wrote: accuracy by N as JSON and as a picture, and for the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from thinkprm_jax.evaluation.estimates import Estimate, estimate_json
from thinkprm_jax.evaluation.output import Output, Report, is_fancy
from thinkprm_jax.evaluation.plots import draw_curves
from thinkprm_jax.evaluation.report import plain_table
from thinkprm_jax.evaluation.selection.accuracy import accuracy_by_n, curves_by_n, method_name
from thinkprm_jax.evaluation.selection.report import ByN, accuracy_cell
from thinkprm_jax.evaluation.selection.runs import WHOLE_SEARCHES, read_run
from thinkprm_jax.records.search import CompletionRow, SearchVerdictRow
from thinkprm_jax.records.search_folder import ACCURACY, COMPLETIONS, VERDICTS
from thinkprm_jax.search.results import failures, total_tokens
from thinkprm_jax.search.voting import powers_of_two

if TYPE_CHECKING:
    from thinkprm_jax.search.recipe import SearchRecipe


def finish_search(recipe: SearchRecipe, speed: Mapping[str, Any], quiet: bool = False) -> int:
    """Writes accuracy.json, accuracy.png and accuracy.svg into the recipe's folder; shows them unless ``quiet``.

    Args:
      speed: of :func:`thinkprm_jax.search.running.run_search`.
    Returns: 1 where problems have no solution, or solutions no verdict (named on stderr), else 0.
    """
    folder = recipe.folder
    rows = CompletionRow.read(folder / COMPLETIONS)
    by_n = accuracies(recipe)
    figures = {
        "n": len(rows),
        "approach": recipe.approach,
        "by_n": {
            str(n): {method: estimate_json(estimate) for method, estimate in estimates.items()}
            for n, estimates in by_n.items()
        },
        "tokens": total_tokens(rows),
        **speed,
    }
    tokens = figures["tokens"]
    verdicts = f"{tokens['verifier']:,} of the verifier ({tokens['verifications']:,} verdicts)"
    lines = [
        f"{recipe.approach} on {len(rows):,} problems: accuracy with its 95% interval",
        f"tokens: {tokens['generated']:,} generated, {verdicts}",
    ]
    panel = draw_curves(
        curves_by_n(by_n), x_label="solutions (N)", y_label="accuracy", title=folder.name, percent=True
    )
    report = Report(figures, lines, [_table(by_n, is_fancy()), str(folder / COMPLETIONS)], [panel])
    Output(json=str(folder / ACCURACY), plots=folder / "accuracy").write(report, quiet)
    failed = failures(rows, SearchVerdictRow.read(folder / VERDICTS))
    for line in [*failed[:10], *([f"and {len(failed) - 10} more"] if len(failed) > 10 else [])]:
        print(f"thinkprm search: {line}", file=sys.stderr)
    return int(bool(failed))


def accuracies(recipe: SearchRecipe) -> dict[int, dict[str, Estimate]]:
    """N -> method -> accuracy, of what the run can say something about.

    A beam search and a DVTS are one search, at their full n. Where nothing was judged there is nothing to rank by,
    and programs (answer_kind none) cannot be voted on.
    """
    n = recipe.settings.n
    numbers = [n] if recipe.approach in WHOLE_SEARCHES else powers_of_two(n)
    votes = recipe.answer_kind != "none"
    wanted = {"naive": recipe.verified, "weighted": recipe.verified and votes, "majority": votes, "pass": True}
    found = accuracy_by_n(read_run(recipe.folder / COMPLETIONS).problems, numbers)
    return {
        number: {method: figures[method] for method in wanted if wanted[method]}
        for number, figures in found.items()
    }


def _table(by_n: ByN, fancy: bool) -> Table:
    """An N a row; cells: accuracy (95% interval)."""
    table = plain_table(fancy, "N")
    methods = list(next(iter(by_n.values())))
    for method in methods:
        table.add_column(method_name(method), justify="right", no_wrap=True)
    for n, figures in by_n.items():
        table.add_row(str(n), *(accuracy_cell(figures[method]) for method in methods))
    return table
