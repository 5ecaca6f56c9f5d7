"""One page of a run: a file that needs nothing but itself, and runs no text that came from a model.

The templates escape every text. Behind that, the page's content security policy allows its own script and style by
their hashes and nothing else: no network, no inline handler, no other script, whatever a solution may contain.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from thinkprm_jax.report import figures, plain
from thinkprm_jax.report.charts import charts
from thinkprm_jax.report.data import encode
from thinkprm_jax.report.mathematics import with_formulas
from thinkprm_jax.report.run import ReportRun
from thinkprm_jax.storage import location
from thinkprm_jax.tables import TextTable

SCRIPTS = ("store.js", "text.js", "list.js", "problem.js", "app.js")
PLAIN = 20  # problems that stand in the page for readers without JavaScript
KINDS = {"search": "Search", "evaluation": "Evaluation", "score": "Verdicts"}


def render(run: ReportRun, title: str | None = None) -> str:
    """The whole page; the same run gives the same text."""
    data = encode(run)
    script = '"use strict";\n(() => {\n' + "\n".join(map(own_file, SCRIPTS)) + "\n})();\n"
    style = own_file("page.css")
    return (
        environment()
        .get_template("page.html")
        .render(
            run=run,
            title=title or f"{KINDS[run.kind]}: {location(run.source).resolve().name}",
            summary=summary(run),
            figures=figures.overview(run),
            charts=charts(figures.solutions_of(run), figures.accuracy_curves(run)),
            breakdowns=breakdowns(run),
            plain_problems=PLAIN,
            policy=policy(script, style),
            # Ours, or made safe for a script element by `encode`: these are not escaped.
            style=Markup(style),
            script=Markup(script),
            index=Markup(data.index),
            parts=[Markup(part) for part in data.parts],
            part_type="text/plain" if data.packed else "application/json",
        )
    )


def environment() -> Environment:
    """Of the templates: every value is freed of what a page cannot hold and escaped, but for ``Markup``."""
    found = Environment(
        loader=PackageLoader("thinkprm_jax.report", ""),
        autoescape=True,
        finalize=_clean,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["with_formulas"] = with_formulas
    for says in (plain.verdict_says, plain.step_says, plain.chain_says, plain.picks_say, plain.score_class):
        found.globals[says.__name__] = says
    return found


def _clean(value: object) -> object:
    return plain.clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def own_file(name: str) -> str:
    """The text of a file of this package."""
    return resources.files("thinkprm_jax.report").joinpath(name).read_text(encoding="utf-8")


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


def breakdowns(run: ReportRun) -> list[tuple[str, TextTable]]:
    """Title and table: whether agreement of the chains can be trusted, and the groups of the data."""
    found = []
    agreement = figures.agreement(figures.solutions_of(run))
    if len(agreement) > 1:
        table = TextTable.of("chains", "verdicts right", "95% interval", "n")
        for (agree, n), estimate in agreement.items():
            table.add(f"{agree} of {n} agree", *figures.ReportFigure("", estimate).cells)
        found.append(("When chains agree", table))
    for name, groups in figures.by_group(run).items():
        table = TextTable.of(name, "verdicts right", "95% interval", "n")
        for group, estimate in groups.items():
            table.add(group, *figures.ReportFigure("", estimate).cells)
        found.append((f"By {name}", table))
    return found
