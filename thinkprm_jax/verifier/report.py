"""Verdicts for people: a table on a terminal, plain lines in a pipe, a progress bar on stderr."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from thinkprm_jax.data.solutions import SolutionRow

if TYPE_CHECKING:
    from thinkprm_jax.verifier.thinkprm import ThinkPRM, Verdict


class Report:
    """Counts, and shows unless --quiet. ``with report`` keeps the progress bar on the screen meanwhile."""

    def __init__(
        self, rows: Sequence[SolutionRow], resumed: Sequence[Mapping[str, Any]], options: argparse.Namespace
    ) -> None:
        self.failed = sum("error" in verdict for row in resumed for _, verdict in _verdicts(row))
        self._total = sum(len(row.solutions) for row in rows)
        self._done = self._resumed = sum(1 for row in resumed for _ in _verdicts(row))
        self._rows_shown = 0
        self._options = options
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError):  # replaced by a test or a notebook
                stream.reconfigure(errors="replace")
        self._out = Console(highlight=False)
        self._err = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rates]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._err,
            disable=options.quiet or not self._err.is_terminal,
        )
        self._task = self._progress.add_task("loading", total=self._total, completed=self._done, rates="")
        self._prm: ThinkPRM | None = None
        self._began = time.monotonic()
        if self._resumed:
            self._say(f"{options.output}: {self._resumed} of {self._total} solutions are judged already")

    def __enter__(self) -> Report:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def begin(self, prm: ThinkPRM) -> None:
        self._prm = prm
        self._began = time.monotonic()
        self._progress.reset(self._task, total=self._total, completed=self._done, description="judging", rates="")

    def judged(self, verdict: Verdict) -> None:
        """One more solution has its verdict, perhaps not yet its turn to be shown."""
        self._done += 1
        self.failed += verdict.error is not None
        self._progress.update(self._task, completed=self._done, rates=self._rates())

    def show(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self._rows_shown += 1
            if self._options.quiet:
                continue
            for number, (steps, verdict) in enumerate(_verdicts(row), start=1):
                name = str(row.get("id", self._rows_shown)) + (f" #{number}" if "verdicts" in row else "")
                if self._out.is_terminal:
                    # One console at a time on the terminal: the bar moves down instead of being written over.
                    console = self._out if self._progress.disable else self._progress.console
                    console.print(verdict_table(name, row, steps, verdict))
                else:
                    print(verdict_line(name, verdict), flush=True)  # rich would turn tabs into blanks

    def summary(self) -> None:
        judged = self._done - self._resumed
        failures = f", {self.failed} not judged (see `error` in the output)" if self.failed else ""
        rates = f" ({self._rates()})" if judged else ""
        self._say(f"{self._done} solutions{failures}{rates}")

    def _rates(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-9)
        tokens = 0 if self._prm is None else self._prm.sampler.stats.sampled_tokens
        return f"{(self._done - self._resumed) / seconds:.2f} solutions/s, {tokens / seconds:.0f} tokens/s"

    def _say(self, text: str) -> None:
        if not self._options.quiet:
            self._err.print(text, markup=False, soft_wrap=True)


def verdict_line(name: str, verdict: Mapping[str, Any]) -> str:
    """Tab-separated: name, score, what it means, score of each step."""
    if "error" in verdict:
        return f"{printable(name)}\t-\tnot judged: {printable(verdict['error'])}"
    labels = verdict["step_labels"]
    meaning = f"first error in step {labels.index(0) + 1}" if 0 in labels else "all steps correct"
    scores = " ".join(f"{number}:{score:.3f}" for number, score in enumerate(verdict["step_scores"], start=1))
    return f"{printable(name)}\t{verdict['prefix_score']:.4f}\t{meaning}\t{scores}"


def verdict_table(name: str, row: Mapping[str, Any], steps: Sequence[str], verdict: Mapping[str, Any]) -> Table:
    """The problem and its steps, coloured by verdict, scores beside them."""
    table = Table(show_header=False, expand=True, title_justify="left", border_style="dim")
    table.add_column(ratio=1)
    table.add_column(justify="right", width=22, no_wrap=True)
    problem = Text(f"{printable(name)}  ", style="dim") + Text(
        printable(row.get("problem", row.get("question"))), style="bold"
    )
    if "error" in verdict:
        table.add_row(problem, Text("not judged", style="yellow"))
        table.add_row(Text(printable(verdict["error"]), style="yellow"), "")
        return table
    score = verdict["prefix_score"]
    table.add_row(problem, Text(f"P(correct) {score:.3f}", style="bold green" if score >= 0.5 else "bold red"))
    labels, scores = verdict["step_labels"], verdict["step_scores"]
    error = labels.index(0) if 0 in labels else len(labels)
    asked = [any(chain["step_forced"][index] for chain in verdict["chains"]) for index in range(len(labels))]
    for index, step in enumerate(steps):
        text = f"{index + 1}. {printable(step)}"
        if index > error:
            table.add_row(Text(text, style="dim"), Text("after the error", style="dim"))
            continue
        mark, style = ("✗ incorrect", "red") if index == error else ("✓ correct", "green")
        star = "*" if asked[index] else " "
        table.add_row(Text(text, style=style), Text(f"{mark}{star} {scores[index]:.3f}", style=style))
    if any(asked):
        table.caption = "* asked for: the chain did not judge this step by itself"
    return table


def printable(text: Any) -> str:
    """On one line, without what could move the cursor or cannot be encoded (control characters, surrogates)."""
    return "".join(
        " "
        if character in "\n\r\t"
        else "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(character)[0] == "C"
        else character
        for character in str(text)
    )


def _verdicts(row: Mapping[str, Any]) -> Iterator[tuple[Sequence[str], Mapping[str, Any]]]:
    """(steps, verdict) of an output row."""
    for verdict in row["verdicts"] if "verdicts" in row else [row["verdict"]]:
        yield verdict.get("steps", row.get("steps", [])), verdict
