"""What a collection kept and left out: files, tables and a picture."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinkprm_jax.collect.filters import KEPT, REASONS, Candidate, Decision
from thinkprm_jax.collect.recipe import FREE_FIELDS, CollectRecipe, SourceCounts
from thinkprm_jax.records.files import atomic_write, write_json
from thinkprm_jax.records.jsonl import write_line
from thinkprm_jax.records.run_folder import claim_folder

if TYPE_CHECKING:
    from rich.table import Table

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


def open_collection(recipe: CollectRecipe) -> Path:
    """The run's folder, with the resolved recipe in it.

    Raises:
      UserError: the folder holds a run of another recipe (names the fields), or cannot be written.
    """
    folder = Path(recipe.output)
    begun = [folder / name for name in (GENERATIONS, f"{GENERATIONS}.waiting", CHAINS)]
    claim_folder(folder, recipe, any(path.exists() and path.stat().st_size for path in begun), FREE_FIELDS)
    return folder


def statistics(kept: Sequence[Candidate]) -> dict[str, Any]:
    """The figures of the paper's table; spreads are None where nothing is kept."""
    rows = [candidate.row for candidate in kept]
    labels = Counter(label for row in rows for label in row["gt_step_labels"])
    correct = sum(candidate.correct for candidate in kept)
    return {
        "chains": len(kept),
        "prefixes": {"correct": correct, "incorrect": len(kept) - correct},
        "step_labels": {"correct": labels["+"], "incorrect": labels["-"]},
        "problems": len({row["problem"] for row in rows}),
        "steps": _spread([len(row["prefix_steps"]) for row in rows]),
        "tokens": _spread([candidate.tokens for candidate in kept]),
    }


def make_report(
    source: SourceCounts, generated: Mapping[str, int], kept: Sequence[Candidate], decisions: Sequence[Decision]
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
    folder: Path, report: Mapping[str, Any], kept: Sequence[Candidate], decisions: Iterable[Decision]
) -> None:
    """Chains, decisions, report and picture; each file is whole or not there at all.

    Raises:
      UserError: the folder cannot be written.
    """
    atomic_write(folder / DECISIONS, b"".join(write_line(dataclasses.asdict(decision)) for decision in decisions))
    atomic_write(folder / PICTURE, draw_lengths(kept))
    write_json(folder / REPORT, report)
    atomic_write(folder / CHAINS, b"".join(write_line(candidate.row) for candidate in kept))


def draw_lengths(kept: Sequence[Candidate]) -> bytes:
    """A PNG: histograms of tokens of a chain and of steps of a prefix, correct and incorrect prefixes stacked."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = {
        "tokens of a chain": lambda candidate: candidate.tokens,
        "steps of a prefix": lambda candidate: len(candidate.row["prefix_steps"]),
    }
    for axes, (title, measure) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        values = [
            [measure(candidate) for candidate in kept if candidate.correct == label] for label in (True, False)
        ]
        longest = max((max(part) for part in values if part), default=1)
        bins = [edge - 0.5 for edge in range(1, longest + 2)] if longest <= 40 else 40
        axes.hist(values, bins=bins, stacked=True, label=["correct", "incorrect"], color=["#4477aa", "#ee6677"])
        axes.set_xlabel(title)
        axes.set_ylabel("chains")
        axes.legend(title="prefix", frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    canvas.print_png(picture, metadata={"Software": None})
    return picture.getvalue()


def selection_table(report: Mapping[str, Any], fancy: bool) -> Table:
    """Kept, and dropped by reason, with shares of all generations."""
    total = report["generations"].get("chains", 0)
    table = _table(fancy, "generations", "", "share")
    rows = {**report["dropped"], KEPT: report["kept"]["chains"]}
    for name, count in rows.items():
        table.add_row(name, f"{count:,}", f"{count / total:.1%}" if total else "")
    table.add_row("all", f"{total:,}", "")
    return table


def statistics_table(report: Mapping[str, Any], fancy: bool) -> Table:
    """The kept chains beside the published 1,000."""
    table = _table(fancy, "kept chains", "this run", "ThinkPRM-1K")
    cells = [_cells(report["kept"]), _cells(PUBLISHED)]
    for name in cells[0]:
        table.add_row(name, *(part[name] for part in cells))
    return table


def _cells(figures: Mapping[str, Any]) -> dict[str, str]:
    def shares(name: str) -> str:
        correct, incorrect = figures[name]["correct"], figures[name]["incorrect"]
        share = f" ({incorrect / (correct + incorrect):.1%} incorrect)" if correct + incorrect else ""
        return f"{correct:,} / {incorrect:,}{share}"

    def spread(name: str) -> str:
        values = figures[name]
        return "" if values["mean"] is None else f"{values['mean']:,.1f} ({values['min']:,} to {values['max']:,})"

    return {
        "prefixes correct / incorrect": shares("prefixes"),
        "step labels correct / incorrect": shares("step_labels"),
        "different problems": f"{figures['problems']:,}",
        "steps per prefix, mean (range)": spread("steps"),
        "tokens per chain, mean (range)": spread("tokens"),
    }


def _table(fancy: bool, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if fancy else None, pad_edge=False)
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _spread(values: Sequence[int]) -> dict[str, float | int | None]:
    if not values:
        return {"mean": None, "min": None, "max": None}
    return {"mean": round(sum(values) / len(values), 2), "min": min(values), "max": max(values)}
