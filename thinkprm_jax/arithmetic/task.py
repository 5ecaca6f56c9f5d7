"""The synthetic task of the bundled models: word problems and expressions of two to four steps.

Sums and differences of numbers below 100, products of a digit and a number with a result below 200, and 50, 25,
20 or 10 percent of a number below 100. A solution is correct, or has a first error (a wrong result, operation,
operand, or a stale running value), and its later steps follow from that error.

`example(seed, index, split)` is a pure function. A problem belongs to "train" or "test" by a hash of its text,
whatever the seed; "unseen" problems use other wordings.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from thinkprm_jax.arithmetic.chains import StatedStep, write_chain
from thinkprm_jax.arithmetic.problems import ArithmeticProblem, Draw, random_problem
from thinkprm_jax.arithmetic.solutions import break_solution, correct_step, step_texts, with_answer
from thinkprm_jax.data.chains import LabelledChain
from thinkprm_jax.data.solutions import SolvedProblem
from thinkprm_jax.recipe import at_least
from thinkprm_jax.seeds import check_seeds

SPLITS = ("train", "test", "unseen")
ERROR_SHARE = {"train": 0.62, "test": 0.5, "unseen": 0.5}
PREFIX_SHARE = 0.25  # of examples that show only the first steps of a solution
_TEST_BUCKETS = 10  # one in this many problem texts is a test problem


@dataclass(frozen=True)
class ArithmeticForm:
    """How solutions end, and how often chains check them.

    answers: share of the solutions whose last step states the answer. rounds: share of the training chains that
    check the steps more than once; round_weights: of 2, 3 and 4 times. steps_of_rounds: all their rounds together
    judge at most so many steps.
    """

    answers: float = 0.0
    rounds: float = 0.07
    round_weights: tuple[int, ...] = (75, 20, 5)
    steps_of_rounds: int = 6

    def __post_init__(self) -> None:
        at_least(0, self, "answers", "rounds", "steps_of_rounds")
        if max(self.answers, self.rounds) > 1:
            raise ValueError("answers and rounds are shares, at most 1")
        if not 1 <= len(self.round_weights) <= 3 or min(self.round_weights) < 0 or not sum(self.round_weights):
            raise ValueError("round_weights holds the weights of 2, 3 and 4 rounds")


PLAIN = ArithmeticForm()


@dataclass(frozen=True)
class ArithmeticSource:
    """In recipes: indexes ``start`` .. ``start + examples - 1`` of one stream of the task."""

    examples: int
    seed: int = 0
    split: Literal["train", "test", "unseen"] = "train"
    start: int = 0
    form: ArithmeticForm = PLAIN

    def __post_init__(self) -> None:
        at_least(1, self, "examples")
        at_least(0, self, "start")
        check_seeds(self, "seed")


@dataclass(frozen=True)
class ArithmeticExample:
    """One example with what the evaluation by kinds needs. error_kind is None for a correct (partial) solution."""

    problem: ArithmeticProblem
    stated: tuple[StatedStep, ...]
    error_kind: str | None
    first_error: int
    chain: LabelledChain


def belongs_to_test(problem: str) -> bool:
    """Whether a problem text is in the test part of the texts that "train" and "test" share."""
    return int.from_bytes(blake2b(problem.encode(), digest_size=8).digest()) % _TEST_BUCKETS == 0


def make_problem(draw: Draw, split: str = "train") -> ArithmeticProblem:
    """A random problem of the split."""
    while True:
        problem = random_problem(draw, split)
        if problem is not None and (split == "unseen" or belongs_to_test(problem.text) == (split == "test")):
            return problem


def example(seed: int, index: int, split: str = "train", form: ArithmeticForm = PLAIN) -> LabelledChain:
    """The chain of one example: a pure function of its arguments."""
    return make_example(seed, index, split, form).chain


def make_example(seed: int, index: int, split: str = "train", form: ArithmeticForm = PLAIN) -> ArithmeticExample:
    """One example: a pure function of its arguments.

    Training mixes in prefixes of solutions and chains of several rounds; the other splits have one round always.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    draw = Draw(f"{seed}/{index}/{split}")
    while True:
        problem = make_problem(draw, split)
        if form.answers and draw.chance(form.answers):
            problem = with_answer(problem)
        steps = len(problem.plans)
        shown = draw.between(1, steps - 1) if draw.chance(PREFIX_SHARE) else steps
        if not draw.chance(ERROR_SHARE[split]):
            stated, kind, first_error = [correct_step(plan) for plan in problem.plans[:shown]], None, -1
            break
        first_error = draw.between(0, shown - 1)
        # The place stays while the kind is redrawn, so that first errors are uniform over the steps.
        broken = next(filter(None, (break_solution(draw, problem, first_error, shown) for _ in range(8))), None)
        if broken is not None:
            stated, kind = broken
            break
    gaps: list[str] = []
    judged = len(stated) if kind is None else first_error + 1
    if split == "train" and draw.chance(form.rounds):
        wanted = draw.weighted(dict(enumerate(form.round_weights, start=2)))
        rounds = min(wanted, form.steps_of_rounds // judged)  # long ones would cost too many tokens
        gaps = [draw.of(("\n\n", "\n\n\n")) for _ in range(rounds - 1)]
    chain = LabelledChain(
        problem=problem.text,
        steps=step_texts(draw, problem, stated),
        chain=write_chain(list(problem.plans), stated, gaps),
        labels=[int(kind is None or step < first_error) for step in range(len(stated))],
        correct=kind is None,
    )
    return ArithmeticExample(problem, tuple(stated), kind, first_error, chain)


def make_solution(seed: int, index: int, split: str = "train") -> SolvedProblem:
    """A problem with a correct solution, as the bundled solver is taught to write: steps between blank lines, the
    last one states the answer. A pure function of its arguments, drawn apart from :func:`make_example`'s."""
    draw, problem = _draw_problem(seed, index, split)
    steps = step_texts(draw, problem, [correct_step(plan) for plan in problem.plans])
    return SolvedProblem(problem.text, "\n\n".join(steps), str(problem.answer))


def solution_problem(seed: int, index: int, split: str = "train") -> ArithmeticProblem:
    """The problem of :func:`make_solution`; its last plan is the answer's."""
    return _draw_problem(seed, index, split)[1]


def _draw_problem(seed: int, index: int, split: str) -> tuple[Draw, ArithmeticProblem]:
    draw = Draw(f"{seed}/{index}/{split}/solution")
    return draw, with_answer(make_problem(draw, split))
