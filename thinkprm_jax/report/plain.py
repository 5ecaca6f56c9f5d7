"""What a page says of problems, verdicts and chains in words, for readers without JavaScript."""

from __future__ import annotations

import re
from collections.abc import Sequence

from thinkprm_jax.report.run import ReportChain, ReportPick, ReportSolution

# What HTML text cannot hold: control characters, lone surrogates, noncharacters.
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def clean(text: str) -> str:
    """The text with a sign in place of each character that a page cannot hold."""
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)


def verdict_says(solution: ReportSolution) -> str:
    """The verdict on a solution, and the truth."""
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


def step_says(solution: ReportSolution, step: int) -> str:
    """The score of a step, and what is special about it."""
    score = solution.scores[step] if solution.scores else None
    said = [] if score is None else [f"{score:.3f}"]
    if 0 in solution.labels and solution.labels.index(0) == step:
        said.append("first error by the verdict")
    if solution.truth == step:
        said.append("true first error")
    if any(chain.forced[step] for chain in solution.chains if chain.forced):
        said.append("forced")
    return ", ".join(said) or "–"


def chain_says(chain: ReportChain) -> str:
    """What a chain found."""
    score = "no score" if chain.score is None else f"P(correct) {chain.score:.3f}"
    flags = {", unreadable": not chain.readable, ", score and labels disagree": chain.contradictory}
    return f"{score}, {finding(chain.first_error)}{''.join(text for text, said in flags.items() if said)}"


def picks_say(picks: Sequence[ReportPick]) -> str:
    """Which solutions each selection took."""
    taken = [(pick.name, ", ".join(str(index + 1) for index in pick.solutions)) for pick in picks]
    return "; ".join(f"{name} took {which}" for name, which in taken)


def finding(first_error: int | None) -> str:
    if first_error is None:
        return "no first error named"
    return "all steps correct" if first_error < 0 else f"first error in step {first_error + 1}"


def score_class(solution: ReportSolution, step: int) -> str:
    """The colour of a step, one of eleven from p0 to p10; `unknown` without a score."""
    score = solution.scores[step] if solution.scores else None
    return "unknown" if score is None else f"p{int(score * 10 + 0.5)}"
