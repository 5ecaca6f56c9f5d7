"""What a search found, from the rows it wrote: accuracy by N as JSON and as a picture, and for the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinkprm_jax.data.jsonl import read_rows
from thinkprm_jax.evaluation.estimates import Estimate, estimate_json
from thinkprm_jax.evaluation.plots import Curve, draw_curves, save_figure
from thinkprm_jax.evaluation.searched import WHOLE_SEARCHES, read_run
from thinkprm_jax.evaluation.selection import accuracy_by_n
from thinkprm_jax.search.results import failures, total_tokens
from thinkprm_jax.search.running import COMPLETIONS, VERDICTS
from thinkprm_jax.search.voting import powers_of_two

if TYPE_CHECKING:
    from thinkprm_jax.search.recipe import SearchRecipe

ACCURACY = "accuracy.json"
ByN = Mapping[int, Mapping[str, Estimate]]
_NAMES = {"pass": "pass@N"}


def finish_search(recipe: SearchRecipe, speed: Mapping[str, Any], quiet: bool = False) -> int:
    """Writes accuracy.json, accuracy.png and accuracy.svg into the recipe's folder; shows them unless ``quiet``.

    Args:
      speed: of :func:`thinkprm_jax.search.running.run_search`.
    Returns: 1 where problems have no solution, or solutions no verdict (named on stderr), else 0.
    """
    folder = recipe.folder
    rows = [row for _, row in read_rows(folder / COMPLETIONS)]
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
    (folder / ACCURACY).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    draw(folder, by_n)
    if not quiet:
        show(recipe, figures, by_n)
    failed = failures(rows, [row for _, row in read_rows(folder / VERDICTS)])
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


def draw(folder: Path, by_n: ByN) -> None:
    curves = [
        Curve(_NAMES.get(method, method), [(n, by_n[n][method]) for n in by_n], reference=method == "pass")
        for method in next(iter(by_n.values()))
    ]
    drawn = draw_curves(curves, x_label="solutions (N)", y_label="accuracy", title=folder.name, percent=True)
    save_figure(folder / "accuracy", [drawn], columns=1)


def show(recipe: SearchRecipe, figures: Mapping[str, Any], by_n: ByN) -> None:
    """The table: on a terminal with lines, in a pipe aligned."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    fancy = sys.stdout.isatty()
    console = Console(highlight=False, markup=False, **({} if fancy else {"width": 200}))
    table = Table(box=box.SIMPLE_HEAD if fancy else None, pad_edge=False)
    table.add_column("N", justify="right")
    methods = list(next(iter(by_n.values())))
    for method in methods:
        table.add_column(_NAMES.get(method, method), justify="right")
    for n, estimates in by_n.items():
        table.add_row(str(n), *(_percent(estimates[method]) for method in methods))
    tokens = figures["tokens"]
    console.print(
        f"{recipe.approach} on {figures['n']:,} problems: accuracy in percent with its 95% interval\n"
        f"tokens: {tokens['generated']:,} generated, {tokens['verifier']:,} of the verifier "
        f"({tokens['verifications']:,} verdicts)\n"
    )
    console.print(table)
    console.print(f"\n{recipe.folder / COMPLETIONS}")


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"
