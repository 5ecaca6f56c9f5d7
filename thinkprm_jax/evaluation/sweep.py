"""Verifier compute: the same solutions judged with more and more of it, in parallel (n chains) and in sequence
(rounds of one chain), with what each costs in tokens.

A line of n needs one run, that of the largest n: its first chains are the chains of the smaller ones.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.intervals import Estimate, estimate_json, mean_estimate, show, show_gain
from thinkprm_jax.evaluation.panels import Curve, CurvesPanel, Panel
from thinkprm_jax.evaluation.report import EvaluationReport, name_of
from thinkprm_jax.evaluation.runner import EvaluationTask, JudgedCases
from thinkprm_jax.evaluation.summary import TaskFigure
from thinkprm_jax.records.evaluation import Outcome
from thinkprm_jax.tables import TextTable

NAMES = {"n": "n chains (parallel)", "rounds": "rounds (sequential)"}


@dataclass(frozen=True)
class SweepSetting:
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
        return mean_estimate(np.array([outcome.tokens for outcome in self.outcomes], float))

    def figure(self, figure: TaskFigure) -> Estimate:
        """Made once, for tables, JSON and pictures alike."""
        if figure.key not in self._figures:
            self._figures[figure.key] = figure.estimate(self.outcomes)
        return self._figures[figure.key]

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

    @property
    def change(self) -> dict[str, int]:
        """The verifier's option that this run changes, with its value."""
        return {self.line: self.values[-1]}

    def settings(
        self, verifier: Mapping[str, Any], judged: JudgedCases
    ) -> Iterator[tuple[SweepSetting, JudgedCases]]:
        """(setting, what was judged at it) of every value; `speed_of` names the run whose time they all have."""
        speed = {**judged.speed, "speed_of": self.name}
        for value in self.values:
            outcomes = judged.of_first[value] if self.line == "n" else judged.outcomes
            stamp = {**verifier, "n": value} if self.line == "n" else dict(verifier)
            part = JudgedCases(outcomes, {}, speed, breakdowns=False)
            yield SweepSetting(self.line, value, stamp, outcomes), part


def plan_sweep(texts: Sequence[str]) -> list[SweepRun]:
    """`n=1,2,4,8`, `rounds=1,2,3,4` or both.

    Raises:
      UserError: something else.
    """
    lines: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, listed = text.partition("=")
        parts = [part.strip() for part in listed.split(",")]
        if name not in NAMES or not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise UserError(f"--sweep {text}: write {' or '.join(f'{name}=1,2,4' for name in NAMES)}")
        if name in lines:
            raise UserError(f"--sweep {name} is given twice")
        lines[name] = tuple(sorted({int(part) for part in parts}))
    runs = []
    for name, values in lines.items():
        runs += [SweepRun(name, values)] if name == "n" else [SweepRun(name, (value,)) for value in values]
    return runs


def by_line(settings: Sequence[SweepSetting]) -> dict[str, list[SweepSetting]]:
    """What is varied -> its settings."""
    lines: dict[str, list[SweepSetting]] = {}
    for setting in settings:
        lines.setdefault(setting.line, []).append(setting)
    return lines


@dataclass(frozen=True)
class SweepGain:
    """What ``ours`` gains over ``theirs``, paired on the same solutions, by the keys of the figures."""

    ours: SweepSetting
    theirs: SweepSetting
    figures: Mapping[str, Estimate]


def compare_settings(settings: Sequence[SweepSetting], figures: Sequence[TaskFigure]) -> list[SweepGain]:
    """Within a line every setting against the first one; between the lines n = k against k rounds, which sample
    about as many tokens."""
    lines = by_line(settings)
    pairs = [(setting, line[0]) for line in lines.values() for setting in line[1:]]
    sequential = {setting.value: setting for setting in lines.get("rounds", ())}
    pairs += [
        (setting, sequential[setting.value]) for setting in lines.get("n", ()) if setting.value in sequential
    ]
    return [
        SweepGain(ours, theirs, {figure.key: figure.gain(ours.outcomes, theirs.outcomes) for figure in figures})
        for ours, theirs in pairs
    ]


def sweep_report(task: EvaluationTask, settings: Sequence[SweepSetting]) -> EvaluationReport:
    """All settings side by side, and what they gain over one another."""
    gains = compare_settings(settings, task.figures)
    tables = [sweep_table(settings, task.figures)]
    if gains:
        tables.append(gains_table(gains, task.figures))
    content = {**task.settings, **sweep_json(settings, task.figures, gains)}
    lines = [
        f"{name_of(settings[0].verifier)} on {task.title}",
        *(f"{figure.key}: {figure.name}" for figure in task.figures),
        "figures: value (95% interval, n); gains: paired on the same solutions",
    ]
    return EvaluationReport(content, lines, tables, sweep_panels(settings, task.figures))


def sweep_json(
    settings: Sequence[SweepSetting], figures: Sequence[TaskFigure], gains: Sequence[SweepGain]
) -> dict[str, Any]:
    return {
        "measures": {figure.key: figure.name for figure in figures},
        "settings": [
            {
                "setting": setting.name,
                "verifier": dict(setting.verifier),
                "tokens": estimate_json(setting.tokens),
                "figures": {figure.key: estimate_json(setting.figure(figure)) for figure in figures},
            }
            for setting in settings
        ],
        "differences": [
            {
                "setting": gain.ours.name,
                "over": gain.theirs.name,
                "gains": {key: estimate_json(value) for key, value in gain.figures.items()},
            }
            for gain in gains
        ],
    }


def sweep_table(settings: Sequence[SweepSetting], figures: Sequence[TaskFigure]) -> TextTable:
    """A setting a row: tokens a verdict, then each figure with its 95% interval and n."""
    table = TextTable.of("setting", "temperature", "tokens a verdict", *(figure.key for figure in figures))
    for index, setting in enumerate(settings):
        temperature = setting.verifier.get("temperature")
        table.add(
            setting.name,
            "-" if temperature is None else f"{temperature:g}",
            show(setting.tokens.value, None),
            *(_cell(setting.figure(figure)) for figure in figures),
            ends_section=index + 1 < len(settings) and settings[index + 1].line != setting.line,
        )
    return table


def gains_table(gains: Sequence[SweepGain], figures: Sequence[TaskFigure]) -> TextTable:
    """A pair of settings a row: the paired difference in each figure."""
    table = TextTable.of("gain of", "over", *(figure.key for figure in figures), left=2)
    for gain in gains:
        cells = [show_gain(gain.figures[figure.key], percent=False) for figure in figures]
        table.add(gain.ours.name, gain.theirs.name, *cells)
    return table


def sweep_panels(settings: Sequence[SweepSetting], figures: Sequence[TaskFigure]) -> list[Panel]:
    """A panel a figure: the figure by tokens, a curve a line of the sweep, each point with its setting."""
    title = f"{len(settings[0].outcomes):,} solutions, 95% intervals"
    return [
        CurvesPanel(
            [
                Curve(
                    NAMES[line],
                    [(setting.tokens.value, setting.figure(figure)) for setting in members],
                    marks=[setting.name for setting in members],
                )
                for line, members in by_line(settings).items()
            ],
            x_label="tokens a verdict (log scale)",
            y_label=figure.axis,
            x_scale="log10",
            title=f"{figure.name}\n{title}",
        )
        for figure in figures
    ]


def _cell(value: Estimate) -> str:
    return f"{show(value.value, False)} ({show(value.low, False)} to {show(value.high, False)}, n {value.n:,})"
