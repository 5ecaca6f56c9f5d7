"""What `thinkprm collect` shows at its end: two tables, and a picture of the lengths."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from thinkprm_jax.collect.filters import KEPT, Candidate
from thinkprm_jax.collect.report import CHAINS, PUBLISHED
from thinkprm_jax.collect.spool import Rows
from thinkprm_jax.tables import TextTable
from thinkprm_jax.views.terminal import show_report


def print_collection(report: Mapping[str, Any], folder: Path) -> None:
    """Both tables, and where the chains are."""
    kept = f"{folder / CHAINS}: {report['kept']['chains']:,} chains"
    show_report(doubts(report), [selection_table(report), statistics_table(report), kept])


def doubts(report: Mapping[str, Any]) -> list[str]:
    """What to say of a teacher whose chains say little: how many were cut, and how many judged nothing."""
    counts, dropped = report["generations"], report["dropped"]
    chains = counts.get("chains", 0)
    cut = sum(counts.get(f"finish: {finish}", 0) for finish in ("length", "context"))
    silent = sum(dropped.get(reason, 0) for reason in ("no generation", "no verdict", "steps without a verdict"))
    said = [f"{cut:,} of {chains:,} chains were cut (teacher.max_tokens, teacher.max_length)"] if cut else []
    if 2 * silent > chains:
        said.append(
            f"{silent:,} of {chains:,} chains have no verdict on each step: this teacher is probably no verifier"
        )
    return said


def draw_lengths(kept: Rows[Candidate]) -> bytes:
    """A PNG: histograms of tokens of a chain and of steps of a prefix, correct and incorrect prefixes stacked."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    # (whether the prefix is correct, size) -> how many; there are few sizes, however many chains.
    tokens, steps = Counter[tuple[bool, int]](), Counter[tuple[bool, int]]()
    for candidate in kept:
        tokens[candidate.correct, candidate.tokens] += 1
        steps[candidate.correct, len(candidate.row.prefix_steps)] += 1
    panels = {"tokens of a chain": tokens, "steps of a prefix": steps}
    for axes, (title, counts) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        sizes = [[size for correct, size in counts if correct is wanted] for wanted in (True, False)]
        weights = [
            [count for (correct, _), count in counts.items() if correct is wanted] for wanted in (True, False)
        ]
        longest = max((size for _, size in counts), default=1)
        bins = np.arange(0.5, longest + 1) if longest <= 40 else 40
        colours = ["#4477aa", "#ee6677"]
        names = ["correct", "incorrect"]
        axes.hist(sizes, bins=bins, weights=weights, stacked=True, label=names, color=colours)
        axes.set_xlabel(title)
        axes.set_ylabel("chains")
        axes.legend(title="prefix", frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    canvas.print_png(picture, metadata={"Software": None})
    return picture.getvalue()


def selection_table(report: Mapping[str, Any]) -> TextTable:
    """Kept, and dropped by reason, with shares of all generations."""
    total = report["generations"].get("chains", 0)
    table = TextTable.of("generations", "", "share")
    rows = {**report["dropped"], KEPT: report["kept"]["chains"]}
    for name, count in rows.items():
        table.add(name, f"{count:,}", f"{count / total:.1%}" if total else "")
    table.add("all", f"{total:,}", "")
    return table


def statistics_table(report: Mapping[str, Any]) -> TextTable:
    """The kept chains beside the published 1,000."""
    table = TextTable.of("kept chains", "this run", "ThinkPRM-1K")
    cells = [_cells(report["kept"]), _cells(PUBLISHED)]
    for name in cells[0]:
        table.add(name, *(part[name] for part in cells))
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
