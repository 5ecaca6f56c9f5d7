"""ProcessBench (arXiv 2412.06559): solutions of maths problems with the index of their first wrong step.

Two figures are made from it, and they must not be mixed up:

- first-error F1, the benchmark's own: the harmonic mean of how often the first wrong step is found at its very
  place and how often a correct solution is left alone; a mean of the subsets' figures.
- binary F1 of the verdict on whole solutions, positive = correct, on OlympiadBench and Omni-MATH only: what the
  ThinkPRM paper reports under the same name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.results import EvaluationCase
from thinkprm_jax.evaluation.runner import EvaluationTask, rows_setting
from thinkprm_jax.evaluation.summary import (
    SUBSET,
    TaskFigure,
    first_error_f1,
    first_error_shares,
    whole_solution_f1,
    whole_solution_shares,
)
from thinkprm_jax.records.datasets import iterate_source
from thinkprm_jax.records.evaluation import LabelledSolutionRow
from thinkprm_jax.records.jsonl import get_field, type_name
from thinkprm_jax.records.row_source import ALL_ROWS, Part
from thinkprm_jax.storage import location

HUB = "Qwen/ProcessBench"
SUBSETS = ("gsm8k", "math", "olympiadbench", "omnimath")
PAPER_SUBSETS = ("olympiadbench", "omnimath")
_FILES = (".json", ".jsonl", ".parquet")


@dataclass(frozen=True)
class ProcessBenchRow:
    """label: index from 0 of the first wrong step, -1 for none. The last two: None if not given."""

    id: str
    subset: str
    problem: str
    steps: tuple[str, ...]
    label: int
    generator: str | None = None
    final_answer_correct: bool | None = None

    def case(self) -> EvaluationCase:
        groups = {SUBSET: self.subset, "steps": _step_range(len(self.steps))}
        if self.final_answer_correct is not None:
            groups["final answer"] = "right" if self.final_answer_correct else "wrong"
        return EvaluationCase(self.problem, self.steps, self.label, groups, self.id)


def processbench_task(
    source: str = HUB,
    subsets: Sequence[str] = SUBSETS,
    limit: int | None = None,
    balanced: bool = False,
    part: Part = ALL_ROWS,
) -> EvaluationTask:
    """Rows of a source, chosen, or a part of these; see :func:`read_processbench` and :func:`choose`.

    Raises:
      UserError: the source is not as described, or nothing is left of it.
    """
    rows = choose(read_processbench(source, list(dict.fromkeys(subsets))), limit, balanced)
    if not rows:
        raise UserError(f"{source}: --balanced leaves nothing: no subset has correct and incorrect solutions")
    chosen = part.rows(len(rows), source)
    setting, rows = rows_setting(chosen, len(rows)), rows[chosen.start : chosen.stop]
    found = list(dict.fromkeys(row.subset for row in rows))
    sample = f", at most {limit:,} of a subset" if limit else ""
    balance = ", correct and incorrect balanced" if balanced else ""
    return EvaluationTask(
        settings={
            "task": "processbench",
            "source": source,
            "subsets": found,
            "limit": limit,
            "balanced": balanced,
            **setting,
        },
        title=f"{len(rows):,} solutions of ProcessBench ({', '.join(found)}{sample}{balance})",
        cases=[row.case() for row in rows],
        figures=task_figures(found),
    )


def task_figures(subsets: Sequence[str]) -> tuple[TaskFigure, ...]:
    """Of an evaluation on these subsets. The paper's figure is there if one of the paper's subsets is."""
    subsets = tuple(subsets)
    of_paper = tuple(subset for subset in subsets if subset in PAPER_SUBSETS)
    mean = _mean_of(subsets)
    found = [
        TaskFigure(
            "first_error_f1_average",
            f"first-error F1 (standard), {mean}",
            first_error_f1,
            first_error_shares,
            "first-error F1",
            subsets,
        ),
        TaskFigure(
            "first_error_f1_by_score_average",
            f"first-error F1 by step scores, {mean}",
            lambda columns: first_error_f1(columns.by_score()),
            lambda columns: first_error_shares(columns.by_score()),
            "first-error F1",
            subsets,
        ),
    ]
    if of_paper:
        name = f"binary F1 of whole solutions (ThinkPRM paper), {_mean_of(of_paper)}"
        key = "binary_f1_paper_average"
        found.append(TaskFigure(key, name, whole_solution_f1, whole_solution_shares, "binary F1", of_paper))
    return tuple(found)


def _mean_of(subsets: Sequence[str]) -> str:
    return subsets[0] if len(subsets) == 1 else f"mean of {', '.join(subsets)}"


def read_processbench(source: str = HUB, subsets: Sequence[str] = SUBSETS) -> list[ProcessBenchRow]:
    """Rows of the chosen subsets: subset by subset, in the order of the source.

    Args:
      source: the data set's id on the Hugging Face Hub, a file of JSON, JSON Lines or parquet, or a folder of such
        files or as `datasets` saves one. A row's subset is the beginning of its `id` (`gsm8k-17`), or else the
        name of its file (`gsm8k.json`).
    Raises:
      UserError: the source cannot be read, a row is not as described (names file, line and field), an id comes
        twice, or a subset has no rows.
    """
    found: dict[str, list[ProcessBenchRow]] = {subset: [] for subset in subsets}
    seen: dict[str, str] = {}
    for place, row, name in _iterate(source, subsets):
        parsed = parse_row(row, place, name)
        if parsed.id in seen:
            raise UserError(f"{place}: the id {parsed.id} is that of {seen[parsed.id]} too")
        seen[parsed.id] = place
        if parsed.subset in found:
            found[parsed.subset].append(parsed)
    for subset, rows in found.items():
        if not rows:
            raise UserError(f"{source}: has no rows of the subset {subset}")
    return [row for rows in found.values() for row in rows]


def _iterate(source: str, subsets: Sequence[str]) -> Iterator[tuple[str, Any, str]]:
    """(place, row, name of the subset where the row itself does not say) of every row."""
    path = location(source)
    if path.is_dir() and not ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
        files = sorted(file for file in path.iterdir() if file.suffix in _FILES)
        if not files:
            raise UserError(f"{source}: the folder holds no .json, .jsonl or .parquet file")
    elif path.exists() or path.suffix in _FILES:
        files = [path]
    else:  # the hub
        for subset in subsets:
            yield from ((place, row, subset) for place, row in iterate_source(source, subset))
        return
    for file in files:
        if file.is_dir():
            for subset in subsets:
                yield from ((place, row, subset) for place, row in iterate_source(str(file), subset))
        else:
            yield from ((place, row, file.stem) for place, row in iterate_source(str(file)))


def parse_row(row: Any, place: str, name: str = "") -> ProcessBenchRow:
    """One row; ``place`` names it in errors. name: the subset of a row whose id does not say it.

    Raises:
      UserError: it is not as described.
    """
    if not isinstance(row, dict):
        raise UserError(f"{place}: a row is an object, not {type_name(row)}")
    id = get_field(row, "id", str, place)
    subset = id.rpartition("-")[0]
    if subset not in SUBSETS:
        subset = name
    if subset not in SUBSETS:
        raise UserError(
            f"{place}: the field `id` is {id!r}; it must begin with its subset ({', '.join(SUBSETS)}), or the "
            "file must be called like it"
        )
    labelled = LabelledSolutionRow.from_dict(row, place)
    return ProcessBenchRow(
        id,
        subset,
        labelled.problem,
        labelled.steps,
        labelled.label,
        get_field(row, "generator", str, place) if "generator" in row else None,
        get_field(row, "final_answer_correct", bool, place) if "final_answer_correct" in row else None,
    )


def choose(
    rows: Sequence[ProcessBenchRow], limit: int | None = None, balanced: bool = False
) -> list[ProcessBenchRow]:
    """At most ``limit`` rows of each subset, always the same ones, in the order of ``rows``; a smaller limit takes
    some of those that a larger one takes.

    balanced: as many correct solutions as incorrect ones, in each subset: as many as there are of the rarer kind.
    """
    kept: set[str] = set()
    for subset in dict.fromkeys(row.subset for row in rows):
        drawn = sorted((row for row in rows if row.subset == subset), key=_rank)
        if balanced:
            kinds = [[row for row in drawn if (row.label < 0) == correct] for correct in (True, False)]
            size = min(map(len, kinds)) if limit is None else min(*map(len, kinds), limit // 2)
            kept |= {row.id for kind in kinds for row in kind[:size]}
        else:
            kept |= {row.id for row in drawn[:limit]}
    return [row for row in rows if row.id in kept]


def _rank(row: ProcessBenchRow) -> bytes:
    """A place that depends on nothing but the row's id."""
    return hashlib.sha256(row.id.encode()).digest()


def _step_range(steps: int) -> str:
    """Such that names sort like numbers."""
    for most in (5, 10, 15):
        if steps <= most:
            return f"{most - 4:02}-{most:02}"
    return "16+"
