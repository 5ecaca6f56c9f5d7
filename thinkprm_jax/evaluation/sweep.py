"""Verifier compute: the same solutions judged with more and more of it, in parallel (n chains) and in sequence
(rounds of one chain), with what each costs in tokens.

A line of n needs one run, that of the largest n: its first chains are the chains of the smaller ones.
"""

from __future__ import annotations

import argparse
import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.estimates import Estimate, bootstrap_estimate, estimate_json, show, show_gain
from thinkprm_jax.evaluation.measures import Measure, difference, estimate
from thinkprm_jax.evaluation.outcomes import Outcome
from thinkprm_jax.evaluation.output import Report, is_fancy
from thinkprm_jax.evaluation.plots import Curve, Draw, draw_curves
from thinkprm_jax.evaluation.report import plain_table
from thinkprm_jax.evaluation.running import Judged, Task

NAMES = {"n": "n chains (parallel)", "rounds": "rounds (sequential)"}


@dataclass(frozen=True)
class Setting:
    """A point of a sweep. line: what is varied (a name of :data:`NAMES`); value: to what."""

    line: str
    value: int
    verifier: Mapping[str, Any]
    outcomes: Sequence[Outcome]

    @property
    def name(self) -> str:
        return f"{self.line}={self.value}"

    @functools.cached_property
    def tokens(self) -> Estimate:
        """Mean tokens of a verdict."""
        tokens = np.array([outcome.tokens for outcome in self.outcomes], float)
        return bootstrap_estimate(lambda rows: float(tokens[rows].mean()), len(tokens))

    def figure(self, measure: Measure) -> Estimate:
        """Made once, for tables, JSON and pictures alike."""
        if measure.key not in self._figures:
            self._figures[measure.key] = estimate(measure, self.outcomes)
        return self._figures[measure.key]

    @functools.cached_property
    def _figures(self) -> dict[str, Estimate]:
        return {}


@dataclass(frozen=True)
class SweepRun:
    """A run of the verifier, at the last of ``values``; of n it gives the others too."""

    line: str
    values: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.line}={self.values[-1]}"

    def change(self, options: argparse.Namespace) -> argparse.Namespace:
        """A copy of the options with the setting in it."""
        changed = copy.copy(options)
        setattr(changed, self.line, self.values[-1])
        return changed

    def settings(self, verifier: Mapping[str, Any], judged: Judged) -> Iterator[tuple[Setting, Judged]]:
        """(setting, what was judged at it) of every value; `speed_of` names the run whose time they all have."""
        speed = {**judged.speed, "speed_of": self.name}
        for value in self.values:
            outcomes = judged.of_first[value] if self.line == "n" else judged.outcomes
            stamp = {**verifier, "n": value} if self.line == "n" else dict(verifier)
            yield Setting(self.line, value, stamp, outcomes), Judged(outcomes, {}, speed, breakdowns=False)


def plan_sweep(texts: Sequence[str]) -> list[SweepRun]:
    """`n=1,2,4,8`, `rounds=1,2,3,4` or both.

    Raises:
      UserError: something else.
    """
    lines: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        parts = [part.strip() for part in values.split(",")]
        if name not in NAMES or not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise UserError(f"--sweep {text}: write {' or '.join(f'{name}=1,2,4' for name in NAMES)}")
        if name in lines:
            raise UserError(f"--sweep {name} is given twice")
        lines[name] = tuple(sorted({int(part) for part in parts}))
    runs = []
    for name, values in lines.items():
        runs += [SweepRun(name, values)] if name == "n" else [SweepRun(name, (value,)) for value in values]
    return runs


def sweep_report(task: Task, settings: Sequence[Setting]) -> Report:
    gains = compare_settings(settings, task.measures)
    tables = [sweep_table(settings, task.measures, is_fancy())]
    if gains:
        tables.append(gains_table(gains, task.measures, is_fancy()))
    content = {**task.settings, **sweep_json(settings, task.measures, gains)}
    lines = [
        f"{settings[0].verifier['model']} on {task.title}",
        *(f"{measure.key}: {measure.name}" for measure in task.measures),
        "figures: value (95% interval, n); gains: paired on the same solutions",
    ]
    return Report(content, lines, tables, sweep_pictures(settings, task.measures))


def compare_settings(
    settings: Sequence[Setting], measures: Sequence[Measure]
) -> list[tuple[Setting, Setting, dict[str, Estimate]]]:
    """(ours, theirs, measure's key -> gain of ours over theirs, paired): within a line every setting against the
    first one; between the lines n = k against k rounds, which sample about as many tokens."""
    lines: dict[str, list[Setting]] = {}
    for setting in settings:
        lines.setdefault(setting.line, []).append(setting)
    pairs = [(setting, line[0]) for line in lines.values() for setting in line[1:]]
    sequential = {setting.value: setting for setting in lines.get("rounds", ())}
    pairs += [
        (setting, sequential[setting.value]) for setting in lines.get("n", ()) if setting.value in sequential
    ]
    return [
        (ours, theirs, {m.key: difference(m, ours.outcomes, theirs.outcomes) for m in measures})
        for ours, theirs in pairs
    ]


def sweep_json(
    settings: Sequence[Setting],
    measures: Sequence[Measure],
    gains: Sequence[tuple[Setting, Setting, Mapping[str, Estimate]]],
) -> dict[str, Any]:
    return {
        "measures": {measure.key: measure.name for measure in measures},
        "settings": [
            {
                "setting": setting.name,
                "verifier": dict(setting.verifier),
                "tokens": estimate_json(setting.tokens),
                "figures": {m.key: estimate_json(setting.figure(m)) for m in measures},
            }
            for setting in settings
        ],
        "differences": [
            {
                "setting": ours.name,
                "over": theirs.name,
                "gains": {key: estimate_json(value) for key, value in found.items()},
            }
            for ours, theirs, found in gains
        ],
    }


def sweep_table(settings: Sequence[Setting], measures: Sequence[Measure], fancy: bool) -> Table:
    """A setting a row: tokens a verdict, then each measure with its 95% interval and n."""
    table = plain_table(fancy, "setting")
    table.add_column("temperature", justify="right", no_wrap=True)
    table.add_column("tokens a verdict", justify="right", no_wrap=True)
    for measure in measures:
        table.add_column(measure.key, justify="right", no_wrap=True)
    for place, setting in enumerate(settings):
        cells = [_cell(setting.figure(measure)) for measure in measures]
        temperature = setting.verifier.get("temperature")
        ends = place + 1 < len(settings) and settings[place + 1].line != setting.line
        table.add_row(
            setting.name,
            "-" if temperature is None else f"{temperature:g}",
            show(setting.tokens.value, None),
            *cells,
            end_section=ends,
        )
    return table


def gains_table(
    gains: Sequence[tuple[Setting, Setting, Mapping[str, Estimate]]], measures: Sequence[Measure], fancy: bool
) -> Table:
    """A pair of settings a row: the paired difference in each measure."""
    table = plain_table(fancy, "gain of")
    table.add_column("over", no_wrap=True)
    for measure in measures:
        table.add_column(measure.key, justify="right", no_wrap=True)
    for ours, theirs, found in gains:
        cells = [show_gain(found[measure.key], percent=False) for measure in measures]
        table.add_row(ours.name, theirs.name, *cells)
    return table


def sweep_pictures(settings: Sequence[Setting], measures: Sequence[Measure]) -> list[Draw]:
    """A panel a measure: the figure by tokens, a curve a line of the sweep, each point with its setting."""
    lines = dict.fromkeys(setting.line for setting in settings)
    draws = []
    for measure in measures:
        curves = []
        for line in lines:
            members = [setting for setting in settings if setting.line == line]
            points = [(setting.tokens.value, setting.figure(measure)) for setting in members]
            curves.append(Curve(NAMES[line], points, marks=[setting.name for setting in members]))
        title = f"{measure.name}\n{len(settings[0].outcomes):,} solutions, 95% intervals"
        x_label = "tokens a verdict (log scale)"
        draws.append(draw_curves(curves, x_label=x_label, y_label=measure.axis, x_scale="log10", title=title))
    return draws


def _cell(value: Estimate) -> str:
    return f"{show(value.value, False)} ({show(value.low, False)} to {show(value.high, False)}, n {value.n:,})"
