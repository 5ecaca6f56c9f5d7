"""What selection makes of searched problems: accuracy by N, and how well the scores tell right from wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from thinkprm_jax.evaluation.intervals import (
    Estimate,
    bootstrap_estimate,
    mean_estimate,
    share_estimate,
    undefined,
)
from thinkprm_jax.evaluation.metrics import (
    auroc,
    brier_score,
    expected_calibration_error,
    point_biserial,
    spearman,
)
from thinkprm_jax.evaluation.panels import Curve
from thinkprm_jax.evaluation.selection.runs import SearchedProblem, SelectionRun, paired
from thinkprm_jax.search.voting import powers_of_two, select

# Method -> what it is.
METHODS: dict[str, str] = {
    "naive": "the completion with the highest score",
    "weighted": "the answer with the highest sum of scores",
    "majority": "the answer that most completions have",
    "pass": "some completion is right",
    "pass_at_k": "some of N completions drawn from all of the problem's is right: the unbiased estimate of pass@N",
}
_NEED_NO_SCORES = {"majority", "pass", "pass_at_k"}
# Field -> (name, shown as a percentage) of the figures of scores.
SCORE_FIGURES = {
    "auroc": ("AUROC", False),
    "auroc_within": ("AUROC among the completions of one problem", False),
    "calibration_error": ("expected calibration error", False),
    "brier": ("Brier score", False),
    "point_biserial": ("point-biserial correlation", False),
    "spearman": ("Spearman's correlation", False),
}


def numbers_of(run: SelectionRun) -> list[int]:
    """The N that a run says something about: powers of two, or all its completions if it is a whole search."""
    return ([run.n] if run.whole else powers_of_two(run.n)) if run.n else []


def hits_by_n(problems: Sequence[SearchedProblem], numbers: Sequence[int]) -> dict[int, dict[str, np.ndarray]]:
    """N -> method -> float [problems]: is the answer selected from the first N completions the right one (1 or 0;
    pass_at_k: a probability)?

    A problem with fewer completions has what it has; one without any is wrong.
    """
    found = {n: {method: np.zeros(len(problems)) for method in METHODS} for n in numbers}
    for index, problem in enumerate(problems):
        count = len(problem.answers)
        if not count:
            continue
        ends = sorted({min(n, count) for n in numbers})
        chosen = select(problem.answers, problem.answers, problem.scores, problem.correct, at=ends)
        for n in numbers:
            selection = chosen[min(n, count)]
            found[n]["naive"][index] = problem.correct[selection.naive.index]
            found[n]["weighted"][index] = problem.correct[selection.weighted.index]
            found[n]["majority"][index] = problem.correct[selection.majority.index]
            found[n]["pass"][index] = selection.pass_any
            found[n]["pass_at_k"][index] = selection.pass_at
    return found


def accuracy_by_n(
    problems: Sequence[SearchedProblem], numbers: Sequence[int] | None = None, resamples: int = 1000
) -> dict[int, dict[str, Estimate]]:
    """N -> method -> accuracy with its bootstrap interval over problems; N: default the powers of two.

    naive and weighted are undefined where no completion of any problem has a score.
    """
    if numbers is None:
        numbers = powers_of_two(max((len(problem.answers) for problem in problems), default=0))
    defined = _methods_of(problems)
    return {
        n: {
            method: _share(values, resamples) if method in defined else undefined()
            for method, values in hits.items()
        }
        for n, hits in hits_by_n(problems, numbers).items()
    }


def _methods_of(problems: Sequence[SearchedProblem]) -> set[str]:
    """Those that can select among these: without a score there is nothing to rank by."""
    scored = any(score is not None for problem in problems for score in problem.scores)
    return set(METHODS) if scored else _NEED_NO_SCORES


def _share(values: np.ndarray, resamples: int) -> Estimate:
    if not values.any() or (values == 1).all():  # where all are alike a resample tells nothing
        return share_estimate(round(values.sum()), len(values))
    return mean_estimate(values, resamples)


def difference_by_n(
    ours: SelectionRun, theirs: SelectionRun, resamples: int = 1000
) -> dict[int, dict[str, Estimate]]:
    """N -> method -> by how much the accuracy of ``ours`` is above that of ``theirs`` on the problems both have,
    resampled together (paired). {} where they have no problem or no N in common; a method that needs scores is
    undefined where one of the two has none."""
    pairs = list(paired(ours, theirs))
    numbers = [n for n in numbers_of(ours) if n in numbers_of(theirs)]
    if not pairs or not numbers:
        return {}
    firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]
    mine, others = hits_by_n(firsts, numbers), hits_by_n(seconds, numbers)
    defined = _methods_of(firsts) & _methods_of(seconds)
    found: dict[int, dict[str, Estimate]] = {}
    for n in numbers:
        gains = {method: mine[n][method] - others[n][method] for method in METHODS}
        found[n] = {
            method: mean_estimate(values, resamples) if method in defined else undefined()
            for method, values in gains.items()
        }
    return found


def tokens_by_n(run: SelectionRun) -> dict[int, tuple[float, float]]:
    """N -> mean (generator, verifier) tokens a problem; {} where they were not counted.

    Of a whole search this is all that it sampled, what it dropped included; of another run, what the first N
    completions and their verdicts consist of, whoever made them.
    """
    found = {}
    for n in numbers_of(run):
        spent = [problem.spent if run.whole else _of_first(problem, n) for problem in run.problems]
        if any(pair is None for pair in spent):
            continue
        generator, verifier = np.mean(np.array(spent, float), axis=0)
        found[n] = (float(generator), float(verifier))
    return found


def _of_first(problem: SearchedProblem, n: int) -> tuple[int, int] | None:
    if problem.generator_tokens is None or problem.verifier_tokens is None:
        return None
    return sum(problem.generator_tokens[:n]), sum(problem.verifier_tokens[:n])


def score_figures(problems: Sequence[SearchedProblem], resamples: int = 1000) -> dict[str, Estimate]:
    """How well scores tell right completions from wrong ones: the fields of :data:`SCORE_FIGURES`.

    Completions of one problem are no independent cases, so problems are resampled; n counts the problems that have
    a scored completion (auroc_within: right ones and wrong ones). Calibration is undefined for scores that are no
    probabilities.
    """
    groups = [
        (np.array([score for score in problem.scores if score is not None], float), _flags(problem))
        for problem in problems
    ]
    groups = [(scores, correct) for scores, correct in groups if len(scores)]

    def pooled(statistic: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[np.ndarray], float]:
        return lambda rows: statistic(
            np.concatenate([groups[row][0] for row in rows]), np.concatenate([groups[row][1] for row in rows])
        )

    within = np.array([auroc(scores, correct) for scores, correct in groups], float)
    within = within[~np.isnan(within)]  # of problems with right and wrong completions
    probabilities = all(scores.min() >= 0 and scores.max() <= 1 for scores, _ in groups)

    def estimate(statistic: Callable[[np.ndarray, np.ndarray], float]) -> Estimate:
        return bootstrap_estimate(pooled(statistic), len(groups), resamples)

    return {
        "auroc": estimate(auroc),
        "auroc_within": mean_estimate(within, resamples),
        "calibration_error": estimate(expected_calibration_error) if probabilities else undefined(len(groups)),
        "brier": estimate(brier_score) if probabilities else undefined(len(groups)),
        "point_biserial": estimate(point_biserial),
        "spearman": estimate(spearman),
    }


def pooled_scores(problems: Sequence[SearchedProblem]) -> tuple[list[float], list[bool]]:
    """(score, correct) of every completion that has a score."""
    pairs = [
        (score, correct)
        for problem in problems
        for score, correct in zip(problem.scores, problem.correct, strict=True)
        if score is not None
    ]
    return [score for score, _ in pairs], [correct for _, correct in pairs]


def _flags(problem: SearchedProblem) -> np.ndarray:
    pairs = zip(problem.scores, problem.correct, strict=True)
    return np.array([correct for score, correct in pairs if score is not None], bool)


def curves_by_n(by_n: Mapping[int, Mapping[str, Estimate]]) -> list[Curve]:
    """Of one run: a line a method that has figures, pass@N as what no selection can pass."""
    curves = [
        Curve(
            method_name(method),
            [(n, figures[method]) for n, figures in sorted(by_n.items()) if method in figures],
            reference=method == "pass",
        )
        for method in METHODS
        if method != "pass_at_k"  # nearly the same line
    ]
    return [curve for curve in curves if not all(math.isnan(figure.value) for _, figure in curve.points)]


def method_name(method: str) -> str:
    """For people."""
    return {"pass": "pass@N", "pass_at_k": "pass@N, unbiased"}.get(method, method)
