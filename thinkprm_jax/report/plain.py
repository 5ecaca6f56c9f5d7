"""A problem as plain HTML, for readers without JavaScript."""

from __future__ import annotations

import re
from html import escape

from thinkprm_jax.report.run import ReportChain, ReportProblem, ReportSolution, VerdictMark

# What has no place in HTML text: control characters, lone surrogates, noncharacters.
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def clean(text: str) -> str:
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)


def plain_problem(problem: ReportProblem, number: int) -> str:
    parts = [f'<article id="p{number}"><h3>Problem {number}</h3>{_text(problem.text, "problem-text")}']
    if problem.answer is not None:
        parts.append(f"<p>Reference answer: <bdi>{_escape(problem.answer)}</bdi></p>")
    for index, solution in enumerate(problem.solutions, start=1):
        parts.append(f"<h4>Solution {index}</h4>" if len(problem.solutions) > 1 else "")
        parts.append(plain_solution(solution))
    taken = [(pick.name, ", ".join(str(index + 1) for index in pick.solutions)) for pick in problem.picks]
    if taken:
        parts.append(f"<p>Selections: {_escape('; '.join(f'{name} took {which}' for name, which in taken))}</p>")
    return "".join([*parts, "</article>"])


def plain_solution(solution: ReportSolution) -> str:
    steps = "".join(plain_step(solution, step) for step in range(len(solution.steps)))
    chains = "".join(
        f"<details><summary>Chain {number}: {_escape(chain_says(chain))}</summary>{plain_chain(chain)}</details>"
        for number, chain in enumerate(solution.chains, start=1)
    )
    return f'<p>{_escape(verdict_says(solution))}</p><ol class="steps">{steps}</ol>{chains}'


def plain_step(solution: ReportSolution, step: int) -> str:
    score = solution.scores[step] if solution.scores else None
    said = [] if score is None else [f"{score:.3f}"]
    if 0 in solution.labels and solution.labels.index(0) == step:
        said.append("first error by the verdict")
    if solution.truth == step:
        said.append("true first error")
    if any(chain.forced[step] for chain in solution.chains if chain.forced):
        said.append("forced")
    chip = f'<span class="chip {score_class(score)}">{_escape(", ".join(said) or "–")}</span>'
    return f'<li class="step {score_class(score)}">{chip} {_text(solution.steps[step], "step-text")}</li>'


def plain_chain(chain: ReportChain) -> str:
    parts = [
        f'<b class="mark {"good" if part.label else "bad"}">{_escape(part.text)}</b>'
        if isinstance(part, VerdictMark)
        else _escape(part)
        for part in chain.parts
    ]
    return f'<div class="chain-text">{"".join(parts)}<span class="ending">{_escape(chain.ending)}</span></div>'


def verdict_says(solution: ReportSolution) -> str:
    """The verdict on a solution, and the truth, in words."""
    if solution.error is not None:
        said = [f"Not judged: {solution.error}"]
    elif solution.verdict_score is None:
        said = ["No verdict"]
    else:
        said = [f"Verdict: P(correct) {solution.verdict_score:.3f}", finding(solution.predicted)]
    if solution.answer is not None:
        said.append(f"answer {solution.answer}")
    if solution.truth is not None:
        said.append(f"truth: {finding(solution.truth)}")
    elif solution.correct is not None:
        said.append(f"the answer is {'right' if solution.correct else 'wrong'}")
    return "; ".join([*said, *(["a wrong verdict"] if solution.wrong else [])])


def chain_says(chain: ReportChain) -> str:
    score = "no score" if chain.score is None else f"P(correct) {chain.score:.3f}"
    return f"{score}, {finding(chain.first_error)}{'' if chain.readable else ', unreadable'}"


def finding(first_error: int | None) -> str:
    if first_error is None:
        return "no first error named"
    return "all steps correct" if first_error < 0 else f"first error in step {first_error + 1}"


def score_class(score: float | None) -> str:
    """One of eleven colours, from p0 to p10; `unknown` without a score."""
    return "unknown" if score is None else f"p{int(score * 10 + 0.5)}"


def _escape(text: str) -> str:
    return escape(clean(text))


def _text(text: str, kind: str) -> str:
    return f'<div class="{kind}">{_escape(text)}</div>'
