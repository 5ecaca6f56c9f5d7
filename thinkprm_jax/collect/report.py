"""What a collection kept and left out, in numbers and in files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from thinkprm_jax.collect.filters import REASONS, Candidate
from thinkprm_jax.collect.recipe import FREE_FIELDS, CollectRecipe, SourceCounts
from thinkprm_jax.records.collection import DecisionRow
from thinkprm_jax.records.files import atomic_write, write_json
from thinkprm_jax.records.output import has_rows, write_rows
from thinkprm_jax.records.run_folder import claim_folder
from thinkprm_jax.storage import Location, location

GENERATIONS = "generations.jsonl"  # every chain as it came; filters are run again without generating
CHAINS = "chains.jsonl"  # what is kept, in the columns of launch/thinkprm-1K-verification-cots
DECISIONS = "decisions.jsonl"  # for each generation whether it is kept, or why not
REPORT = "report.json"
PICTURE = "lengths.png"

# The published set, for comparison: the paper's table.
PUBLISHED = {
    "prefixes": {"correct": 486, "incorrect": 514},
    "step_labels": {"correct": 7474, "incorrect": 625},
    "problems": 869,
    "steps": {"mean": 9.5, "min": 1, "max": 53},
    "tokens": {"mean": 1037, "min": 207, "max": 3669},
}


def open_collection(recipe: CollectRecipe) -> Location:
    """The run's folder, with the resolved recipe in it.

    Raises:
      UserError: the folder holds a run of another recipe (names the fields), or cannot be written.
    """
    folder = location(recipe.output)
    begun = any(has_rows(folder / name) for name in (GENERATIONS, CHAINS))
    claim_folder(folder, recipe, begun, FREE_FIELDS)
    return folder


def statistics(kept: Sequence[Candidate]) -> dict[str, Any]:
    """The figures of the paper's table; spreads are None where nothing is kept."""
    rows = [candidate.row for candidate in kept]
    labels = Counter(label for row in rows for label in row.gt_step_labels)
    correct = sum(candidate.correct for candidate in kept)
    return {
        "chains": len(kept),
        "prefixes": {"correct": correct, "incorrect": len(kept) - correct},
        "step_labels": {"correct": labels["+"], "incorrect": labels["-"]},
        "problems": len({row.problem for row in rows}),
        "steps": _spread([len(row.prefix_steps) for row in rows]),
        "tokens": _spread([candidate.tokens for candidate in kept]),
    }


def make_report(
    source: SourceCounts, generated: Mapping[str, int], kept: Sequence[Candidate], decisions: Sequence[DecisionRow]
) -> dict[str, Any]:
    """All counts of a run. The same generations and filters give the same report: no times in it."""
    reasons = Counter(decision.reason for decision in decisions)
    return {
        "source": {
            "rows": source.rows,
            "prefixes": source.prefixes,
            "dropped": dict(sorted(source.dropped.items())),
        },
        "generations": dict(sorted(generated.items())),
        "prefixes_used": len({decision.prefix for decision in decisions}),
        "dropped": {reason: reasons[reason] for reason in REASONS if reasons[reason]},
        "kept": statistics(kept),
    }


def save_collection(
    folder: Location,
    report: Mapping[str, Any],
    kept: Sequence[Candidate],
    decisions: Iterable[DecisionRow],
    picture: bytes,
) -> None:
    """Chains, decisions, report and the PNG ``picture``; each file is whole or not there at all.

    Raises:
      UserError: the folder cannot be written.
    """
    write_rows(folder / DECISIONS, decisions)
    atomic_write(folder / PICTURE, picture)
    write_json(folder / REPORT, report)
    write_rows(folder / CHAINS, [candidate.row for candidate in kept])


def _spread(values: Sequence[int]) -> dict[str, float | int | None]:
    if not values:
        return {"mean": None, "min": None, "max": None}
    return {"mean": round(sum(values) / len(values), 2), "min": min(values), "max": max(values)}
