"""What a collection kept and left out, in numbers and in files."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from thinkprm_jax.collect.filters import REASONS, Candidate, Collection
from thinkprm_jax.collect.recipe import FREE_FIELDS, CollectRecipe, SourceCounts
from thinkprm_jax.collect.spool import Rows, count_distinct
from thinkprm_jax.collect.store import ChainTable, GenerationStore, SharedGenerations
from thinkprm_jax.data.prm800k import Prefix
from thinkprm_jax.paths import check_output_folder
from thinkprm_jax.records.collection import DecisionRow
from thinkprm_jax.records.files import atomic_write, write_json
from thinkprm_jax.records.job import Sharing
from thinkprm_jax.records.joined_output import is_shared
from thinkprm_jax.records.output import has_rows, write_rows
from thinkprm_jax.records.run_folder import agreed_fields, claim_folder
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


def open_store(
    recipe: CollectRecipe,
    prefixes: Sequence[Prefix],
    settings: Mapping[str, Any],
    collection: Collection,
    sharing: Sharing | None = None,
) -> GenerationStore | SharedGenerations:
    """The chains of the run, in its folder, with the resolved recipe beside them.

    Args:
      settings: of the teacher. collection: is given every prefix whose chains are there, until it is over.
      sharing: how this process takes part where others collect, too; None: alone, unless others have begun.
    Raises:
      UserError: as of :func:`open_collection`.
    """
    assert recipe.teacher is not None
    folder, sharing = location(recipe.output), sharing or Sharing()
    chains, file = ChainTable(prefixes, recipe.teacher.chains, collection.add), folder / GENERATIONS
    if not is_shared(file, sharing):
        open_collection(recipe)
        return GenerationStore(file, chains, settings, lambda: collection.over)
    check_output_folder(folder)
    agreed = agreed_fields(recipe, FREE_FIELDS)
    store = SharedGenerations(file, chains, settings, lambda: collection.over, recipe.wave, sharing, agreed)
    claim_folder(folder, recipe, False, FREE_FIELDS)  # the job has agreed on it
    return store


class _Spread:
    """Of numbers as they come."""

    def __init__(self) -> None:
        self._sum = self._count = 0
        self._least = self._most = 0

    def add(self, value: int) -> None:
        self._least = min(self._least, value) if self._count else value
        self._most = max(self._most, value)
        self._sum += value
        self._count += 1

    def content(self) -> dict[str, float | int | None]:
        if not self._count:
            return {"mean": None, "min": None, "max": None}
        return {"mean": round(self._sum / self._count, 2), "min": self._least, "max": self._most}


def statistics(kept: Rows[Candidate]) -> dict[str, Any]:
    """The figures of the paper's table; spreads are None where nothing is kept."""
    correct, labels, steps, tokens = 0, Counter[str](), _Spread(), _Spread()
    for candidate in kept:
        correct += candidate.correct
        labels.update(candidate.row.gt_step_labels)
        steps.add(len(candidate.row.prefix_steps))
        tokens.add(candidate.tokens)
    return {
        "chains": len(kept),
        "prefixes": {"correct": correct, "incorrect": len(kept) - correct},
        "step_labels": {"correct": labels["+"], "incorrect": labels["-"]},
        "problems": count_distinct(candidate.row.problem for candidate in kept),
        "steps": steps.content(),
        "tokens": tokens.content(),
    }


def make_report(
    source: SourceCounts, generated: Mapping[str, int], kept: Rows[Candidate], decisions: Rows[DecisionRow]
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
        "prefixes_used": sum(1 for _ in itertools.groupby(decision.prefix for decision in decisions)),
        "dropped": {reason: reasons[reason] for reason in REASONS if reasons[reason]},
        "kept": statistics(kept),
    }


def save_collection(
    folder: Location,
    report: Mapping[str, Any],
    kept: Rows[Candidate],
    decisions: Rows[DecisionRow],
    picture: bytes,
) -> None:
    """Chains, decisions, report and the PNG ``picture``; each file is whole or not there at all.

    Raises:
      UserError: the folder cannot be written.
    """
    write_rows(folder / DECISIONS, decisions)
    atomic_write(folder / PICTURE, picture)
    write_json(folder / REPORT, report)
    write_rows(folder / CHAINS, (candidate.row for candidate in kept))
