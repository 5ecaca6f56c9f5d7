"""One page of a run: a file that needs nothing but itself, and runs no text that came from a model.

Its content security policy allows the page's own script and style by their hashes and nothing else: no network, no
inline handler, no other script, whatever a solution may contain.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from thinkprm_jax.report import figures
from thinkprm_jax.report.charts import Chart, charts
from thinkprm_jax.report.data import encode
from thinkprm_jax.report.plain import clean, plain_problem
from thinkprm_jax.report.run import ReportProblem, ReportRun

SCRIPTS = ("store.js", "text.js", "list.js", "problem.js", "app.js")
PLAIN = 20  # problems that stand in the page for readers without JavaScript
KINDS = {"search": "Search", "evaluation": "Evaluation", "score": "Verdicts"}


def render(run: ReportRun, title: str | None = None) -> str:
    """The whole page; the same run gives the same text."""
    data = encode(run)
    script = '"use strict";\n(() => {\n' + "\n".join(template(name) for name in SCRIPTS) + "\n})();\n"
    style = template("page.css")
    kind = "text/plain" if data.packed else "application/json"
    title = title or f"{KINDS[run.kind]}: {Path(run.source).resolve().name}"
    return fill(
        template("page.html"),
        {
            "policy": policy(script, style),
            "title": escape(clean(title)),
            "style": style,
            "script": script,
            "summary": escape(clean(summary(run))),
            "notes": "".join(f'<p class="note">{escape(clean(note))}</p>' for note in run.notes),
            "figures": figures_html(run),
            "charts": "".join(
                chart_html(chart) for chart in charts(figures.solutions_of(run), figures.accuracy_curves(run))
            ),
            "tables": tables_html(run),
            "settings": settings_html(run),
            "plain": plain_html(run.problems),
            "index": data.index,
            "parts": "\n".join(
                f'<script type="{kind}" id="part-{number}">{part}</script>'
                for number, part in enumerate(data.parts)
            ),
        },
    )


def fill(text: str, values: dict[str, str]) -> str:
    """``text`` with each `{{name}}` replaced once; braces in the values stay what they are."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)


def template(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def policy(script: str, style: str) -> str:
    return (
        f"default-src 'none'; script-src 'sha256-{_sha256(script)}'; style-src 'sha256-{_sha256(style)}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def summary(run: ReportRun) -> str:
    """One line: how much there is."""
    solutions = figures.solutions_of(run)
    chains = sum(len(solution.chains) for solution in solutions)
    counted = {"problem": len(run.problems), "solution": len(solutions), "chain": chains}
    said = [f"{n:,} {name}{'' if n == 1 else 's'}" for name, n in counted.items() if n]
    return " · ".join(said)


def figures_html(run: ReportRun) -> str:
    rows = []
    for figure in figures.overview(run):
        value, interval, n = figure.cells
        name = f'<th scope="row">{escape(figure.name)}</th>'
        rows.append(f'<tr>{name}<td class="value">{value}</td><td>{interval}</td><td>{n}</td></tr>')
    head = table_head(("figure", "value", "95% interval", "n"))
    return f'<div class="scroll"><table class="figures">{head}<tbody>{"".join(rows)}</tbody></table></div>'


def chart_html(chart: Chart) -> str:
    return (
        f'<figure class="chart" data-chart="{chart.key}"><h3>{escape(chart.title)}</h3>{chart.svg}'
        f"<figcaption>{escape(chart.caption)}</figcaption>"
        '<details><summary>As a table</summary><div class="scroll">'
        f"{table(chart.head, chart.rows)}</div></details></figure>"
    )


def tables_html(run: ReportRun) -> str:
    """Whether agreement of the chains can be trusted, and the groups of the data."""
    parts = []
    agreement = figures.agreement(figures.solutions_of(run))
    if len(agreement) > 1:
        rows = [
            (f"{agree} of {n} agree", *figures.ReportFigure("", estimate).cells)
            for (agree, n), estimate in agreement.items()
        ]
        parts.append(_titled("When chains agree", table(("chains", "verdicts right", "95% interval", "n"), rows)))
    for name, groups in figures.by_group(run).items():
        rows = [(group, *figures.ReportFigure("", estimate).cells) for group, estimate in groups.items()]
        parts.append(_titled(f"By {name}", table((name, "verdicts right", "95% interval", "n"), rows)))
    return "".join(parts)


def _titled(title: str, body: str) -> str:
    return f'<section class="breakdown"><h3>{escape(clean(title))}</h3><div class="scroll">{body}</div></section>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first cell of a row is its heading."""
    body = []
    for first, *cells in rows:
        cells = [f"<td>{escape(cell)}</td>" for cell in cells]
        body.append(f'<tr><th scope="row">{escape(clean(first))}</th>{"".join(cells)}</tr>')
    return f"<table>{table_head(head)}<tbody>{''.join(body)}</tbody></table>"


def table_head(names: Sequence[str]) -> str:
    cells = [f'<th scope="col">{escape(clean(name))}</th>' for name in names]
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def settings_html(run: ReportRun) -> str:
    if not run.settings:
        return ""
    rows = "".join(
        f"<div><dt>{escape(clean(name))}</dt><dd>{escape(clean(value))}</dd></div>"
        for name, value in run.settings.items()
    )
    name = "Recipe" if run.kind == "search" else "Verifier"
    return f'<details class="settings"><summary>{name}</summary><dl>{rows}</dl></details>'


def plain_html(problems: tuple[ReportProblem, ...]) -> str:
    shown = "".join(plain_problem(problem, number) for number, problem in enumerate(problems[:PLAIN], start=1))
    left = len(problems) - PLAIN
    more = (
        f"<p>{left:,} more problems are in this file; a browser with JavaScript shows them.</p>"
        if left > 0
        else ""
    )
    return shown + more
