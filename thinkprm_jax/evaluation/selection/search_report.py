"""What a search found, from the rows it wrote: accuracy by N, tokens, and what failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thinkprm_jax.evaluation.intervals import Estimate
from thinkprm_jax.evaluation.panels import CurvesPanel
from thinkprm_jax.evaluation.report import EvaluationReport
from thinkprm_jax.evaluation.selection.accuracy import accuracy_by_n, curves_by_n, method_name
from thinkprm_jax.evaluation.selection.comparison import ByN, accuracy_cell, by_n_json
from thinkprm_jax.evaluation.selection.runs import WHOLE_SEARCHES, read_run
from thinkprm_jax.records.search import CompletionRow, SearchVerdictRow
from thinkprm_jax.records.search_folder import COMPLETIONS, VERDICTS
from thinkprm_jax.records.soundness import ChainCounts
from thinkprm_jax.search.results import failures, total_tokens
from thinkprm_jax.search.voting import powers_of_two
from thinkprm_jax.tables import TextTable

if TYPE_CHECKING:
    from thinkprm_jax.search.recipe import SearchRecipe


@dataclass(frozen=True)
class SearchReport:
    """Of a finished search.

    Attributes:
      report: what goes into its accuracy.json, its picture, and to the terminal.
      failures: a line on every problem without a solution, or with solutions that got no verdict.
    """

    report: EvaluationReport
    failures: list[str]


def read_search(recipe: SearchRecipe, speed: Mapping[str, Any]) -> SearchReport:
    """From the recipe's folder. speed: of this part of the run."""
    folder = recipe.folder
    rows = CompletionRow.read(folder / COMPLETIONS)
    verdicts = SearchVerdictRow.read(folder / VERDICTS)
    by_n, tokens = accuracies(recipe), total_tokens(rows)
    counts = ChainCounts.of(verdict for row in verdicts for verdict in row.verdicts)
    content = {
        "n": len(rows),
        "approach": recipe.approach,
        "by_n": by_n_json(by_n),
        "tokens": tokens,
        "chains": dataclasses.asdict(counts),
        **speed,
    }
    judged = f"{tokens['verifier']:,} of the verifier ({tokens['verifications']:,} verdicts)"
    lines = [
        f"{recipe.approach} on {len(rows):,} problems: accuracy with its 95% interval",
        f"tokens: {tokens['generated']:,} generated, {judged}",
        *counts.lines,
    ]
    panel = CurvesPanel(
        curves_by_n(by_n), x_label="solutions (N)", y_label="accuracy", title=folder.name, percent=True
    )
    report = EvaluationReport(content, lines, [_table(by_n), str(folder / COMPLETIONS)], [panel])
    return SearchReport(report, failures(rows, verdicts))


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


def _table(by_n: ByN) -> TextTable:
    """An N a row; cells: accuracy (95% interval)."""
    methods = list(next(iter(by_n.values())))
    table = TextTable.of("N", *map(method_name, methods))
    for n, figures in by_n.items():
        table.add(str(n), *(accuracy_cell(figures[method]) for method in methods))
    return table
