"""Verdicts for people: a table on a terminal, plain lines in a pipe, a progress bar on stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from thinkprm_jax.errors import TooLongCount
from thinkprm_jax.progress import LOOK_SECONDS, ProgressBar, Ticker, VerdictProgress, spell_rate
from thinkprm_jax.records.soundness import ChainCounts
from thinkprm_jax.records.verdicts import VerdictRecord, VerdictRow

if TYPE_CHECKING:
    from thinkprm_jax.activity import Activity
    from thinkprm_jax.verifier.base import Verdict


class Working(Protocol):
    """What judges, as far as it is shown: a verifier, or many."""

    @property
    def sampled_tokens(self) -> int: ...

    @property
    def activity(self) -> Activity: ...

    def requests(self, solutions: int, /) -> tuple[str, int]: ...


class Report:
    """Counts, and shows unless ``quiet``: what is there already, the progress, each row in its turn, the sum.

    Args:
      total: solutions of the input.
      source: of the rows of an earlier run.
    """

    def __init__(self, total: int, source: str = "", quiet: bool = False) -> None:
        self.failed = self._done = 0
        self._total, self._source, self._quiet = total, source, quiet
        self._counts = ChainCounts()
        self._too_long = TooLongCount()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # otherwise replaced by a test or a notebook
                stream.reconfigure(errors="replace")
        self._out, self._err = Console(highlight=False), Console(stderr=True, highlight=False)
        self._progress: VerdictProgress | None = None
        self._speed = ""
        self._everyone: Callable[[], tuple[int, str]] | None = None

    def share(self, everyone: Callable[[], tuple[int, str]]) -> None:
        """The total is one of rows, which several processes judge: ``everyone`` says how many they have, and what
        else is to be shown."""
        self._everyone = everyone

    def begin(self, resumed: Mapping[str, int]) -> None:
        """resumed: of the output rows of an earlier run, the sum of :func:`count_row`."""
        found = dict(resumed)
        self._done, self.failed = found.pop("solutions", 0), found.pop("failed", 0)
        self._counts = ChainCounts(**found)
        if self._done and self._everyone is None:
            self.say(f"{self._source}: {self._done} of {self._total} solutions are judged already")

    @contextlib.contextmanager
    def loading(self, model: str) -> Iterator[None]:
        with ProgressBar(None, quiet=self._quiet) as progress:
            progress.phase(f"loading {printable(model)}")
            yield

    @contextlib.contextmanager
    def judging(self, verifier: Working) -> Iterator[None]:
        began, done, sampled = time.monotonic(), self._done, verifier.sampled_tokens
        if self._quiet:
            yield
        elif self._everyone is not None:
            rows, _ = self._everyone()
            with VerdictProgress(self._total, rows, unit="row") as progress:
                progress.follow({"": lambda: verifier.activity}, verifier.requests(1)[0])
                everyone = self._everyone
                with Ticker(LOOK_SECONDS, lambda: progress.show(*everyone())):
                    yield
        else:
            with VerdictProgress(self._total, self._done, unit="solution") as self._progress:
                left = self._total - self._done
                self._progress.follow({"": lambda: verifier.activity}, *verifier.requests(left))
                yield
            self._progress = None
        seconds = max(time.monotonic() - began, 1e-9)
        tokens = verifier.sampled_tokens - sampled
        rates = [spell_rate(self._done - done, seconds, "solution"), spell_rate(tokens, seconds, "token")]
        self._speed = f" in {seconds:.1f} s ({', '.join(filter(None, rates)) or 'nothing to judge'})"

    def judged(self, verdict: Verdict) -> None:
        """One more solution has its verdict, perhaps not yet its turn to be shown."""
        self._done += 1
        self.failed += verdict.error is not None
        self._counts += ChainCounts.of([verdict.record()])
        self._too_long.add(verdict.error)
        if self._progress is not None:
            self._progress.advance()

    def show(self, number: int, row: VerdictRow) -> None:
        """An output row; number: from 1, its name where it has no id."""
        if self._quiet:
            return
        for place, (steps, verdict) in enumerate(row.judged(), start=1):
            name = str(row.solution.row.get("id", number)) + (f" #{place}" if row.solution.many else "")
            if not self._out.is_terminal:
                print(verdict_line(name, verdict), flush=True)  # rich would turn tabs into blanks
                continue
            # Above the bar, where one stands on the same terminal.
            bar = self._progress if self._err.is_terminal else None
            console = self._out if bar is None else bar.console
            console.print(verdict_table(name, row.problem, steps, verdict))

    def summary(self) -> None:
        failures = f", {self.failed} not judged (`error` in the output says why)" if self.failed else ""
        self.say(f"{self._done} solutions{failures}{self._speed}")
        for line in [*self._too_long.lines("--max-length"), *self._counts.lines]:
            self.say(line)

    def say(self, text: str) -> None:
        """A line on stderr, unless quiet."""
        if not self._quiet:
            self._err.print(text, markup=False, soft_wrap=True)


def count_row(row: VerdictRow) -> dict[str, int]:
    """What a report counts in a row."""
    failed = sum(verdict.error is not None for verdict in row.verdicts)
    return {"solutions": len(row.verdicts), "failed": failed, **dataclasses.asdict(ChainCounts.of(row.verdicts))}


def verdict_line(name: str, verdict: VerdictRecord) -> str:
    """Tab-separated: name, score, what it means, score of each step; and where chains were cut, contradict
    themselves or were asked for verdicts, a column that says so."""
    remarks = "".join(f"\t{remark}" for remark in [", ".join(ChainCounts.of([verdict]).remarks)] if remark)
    if verdict.prefix_score is None:
        return f"{printable(name)}\t-\tnot judged: {printable(verdict.error)}"
    labels = verdict.step_labels or ()
    if not labels:  # of a judge that says nothing of steps
        meaning = "correct" if verdict.prefix_score >= 0.5 else "incorrect"
        return f"{printable(name)}\t{verdict.prefix_score:.4f}\t{meaning}\t{remarks}"
    meaning = f"first error in step {labels.index(0) + 1}" if 0 in labels else "all steps correct"
    scores = " ".join(f"{number}:{score:.3f}" for number, score in enumerate(verdict.step_scores or (), start=1))
    return f"{printable(name)}\t{verdict.prefix_score:.4f}\t{meaning}\t{scores}{remarks}"


def verdict_table(name: str, question: str, steps: Sequence[str], verdict: VerdictRecord) -> Table:
    """The problem and its steps, coloured by verdict, scores beside them."""
    table = Table(show_header=False, expand=True, title_justify="left", border_style="dim")
    table.add_column(ratio=1)
    table.add_column(justify="right", width=22, no_wrap=True)
    problem = Text(f"{printable(name)}  ", style="dim") + Text(printable(question), style="bold")
    score = verdict.prefix_score
    if score is None:
        table.add_row(problem, Text("not judged", style="yellow"))
        table.add_row(Text(printable(verdict.error), style="yellow"), "")
        return table
    table.add_row(problem, Text(f"P(correct) {score:.3f}", style="bold green" if score >= 0.5 else "bold red"))
    labels, scores = verdict.step_labels or (), verdict.step_scores or ()
    error = labels.index(0) if 0 in labels else len(labels)
    forced = [chain.step_forced for chain in verdict.chains]
    asked = [any(index < len(flags) and flags[index] for flags in forced) for index in range(len(steps))]
    for index, step in enumerate(steps):
        text = f"{index + 1}. {printable(step)}"
        if not labels:  # of a judge that says nothing of steps
            table.add_row(Text(text), "")
            continue
        if index > error and verdict.chains:  # a verifier without chains scores each step by itself
            table.add_row(Text(text, style="dim"), Text("after the error", style="dim"))
            continue
        mark, style = ("✓ correct", "green") if labels[index] else ("✗ incorrect", "red")
        star = "*" if asked[index] else " "
        table.add_row(Text(text, style=style), Text(f"{mark}{star} {scores[index]:.3f}", style=style))
    counts = ChainCounts.of([verdict])
    captions = ["* asked for: the chain did not judge this step by itself"] if any(asked) else []
    captions += [remark for remark in counts.remarks if "asked for" not in remark]
    table.caption = "; ".join(captions) or None
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
