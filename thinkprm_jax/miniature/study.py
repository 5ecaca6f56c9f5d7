"""The paper in miniature: what is asked of which models, how much is run, and where each part of it lies.

    accuracy by N      best-of-N, beam search and DVTS, each with every verifier, on the same problems
    verifier compute   chains side by side against rounds of thinking, on the solver's own solutions
    calibration        what the scores of the best-of-N solutions are worth; needs no run of its own

:mod:`thinkprm_jax.miniature.stages` has the runs.
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

SPLIT = "test"  # problems kept out of the training of the bundled models
GENERATOR = "mini-solver"
# The verifiers by the names of their models: what each is. The first is compared with the others.
VERIFIERS = {
    "mini": "the bundled verifier",
    "mini-weak": "the same architecture, trained on fewer chains",
}
TREES = {"beam_search": "beam search", "dvts": "DVTS"}


@dataclasses.dataclass(frozen=True)
class MiniatureSize:
    """How much is done.

    Attributes:
      problems: of accuracy by N and calibration.
      samples: solutions of each: the largest N of best-of-N.
      beams: the N of beam search and DVTS, multiples of ``width``.
      width: candidates of a beam or a tree (M).
      cases: solutions that verifier compute is measured on, one of each of as many other problems.
      chains, rounds: of verifier compute.
      max_tokens: of a solution. max_gen_tokens: of a round of a verifier, None: what fits.
      max_length: of a verifier's prompt and chain in a search. compute_length: the same for verifier compute: with
        several rounds, none of which should be cut.
    """

    problems: int = 100
    samples: int = 16
    beams: tuple[int, ...] = (4, 8, 16)
    width: int = 4
    cases: int = 240
    chains: tuple[int, ...] = (1, 2, 4, 8)
    rounds: tuple[int, ...] = (1, 2, 3, 4)
    max_tokens: int = 128
    max_gen_tokens: int | None = None
    max_length: int = 768
    compute_length: int = 1536


SIZES = {
    "full": MiniatureSize(),
    "quick": MiniatureSize(problems=12, samples=4, beams=(4,), cases=24, chains=(1, 2), rounds=(1, 2)),
}


@dataclasses.dataclass(frozen=True)
class MiniaturePlan:
    """verifiers: name -> model (bundled, a folder or a Hugging Face id). seed: draws problems, solutions and
    chains."""

    folder: Path
    generator: str
    verifiers: dict[str, str]
    size: MiniatureSize
    seed: int = 0

    @property
    def command(self) -> str:
        """Runs all of it, and goes on where it was stopped."""
        size = self.size
        quick = size == dataclasses.replace(SIZES["quick"], problems=size.problems, cases=size.cases)
        verifiers = [f"{name}={model}" for name, model in self.verifiers.items()]
        named = [] if self.verifiers == {name: name for name in VERIFIERS} else ["--verifiers", *verifiers]
        generator = [] if self.generator == GENERATOR else ["--generator", self.generator]
        seed = ["--seed", self.seed] if self.seed else []
        numbers = ["--problems", size.problems, "--cases", size.cases]
        options = [*(["--quick"] if quick else []), *numbers, *generator, *named, *seed]
        return shell("thinkprm", "miniature", "--output", self.folder, *options)

    @property
    def case_seed(self) -> int:
        """Draws the problems of the cases, which must be others."""
        return self.seed + 1_000_000

    @property
    def solutions(self) -> Path:
        return self.folder / "solutions"

    @property
    def cases(self) -> Path:
        return self.folder / "cases.jsonl"

    def best_of_n(self, verifier: str) -> Path:
        return self.folder / "best_of_n" / verifier

    def tree(self, approach: str, verifier: str, n: int) -> Path:
        return self.folder / approach / verifier / str(n)

    def compute(self, verifier: str) -> Path:
        return self.folder / "verifier_compute" / verifier


def shell(*words: object) -> str:
    """A command as it is typed."""
    return shlex.join(map(str, words))
