"""A kind of verifier of your own: it does the sums of a step again, without any model.

    python examples/own_verifier.py

A kind is a settings class, a verifier class and a registration; then every program takes it by its name. A field
of the settings is an option, a key of search recipes and a part of the stamp on every row.
"""

from __future__ import annotations

import itertools
import operator
import re
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

from thinkprm_jax import Verdict
from thinkprm_jax.cli import main as thinkprm
from thinkprm_jax.verifier.immediate import ImmediateVerifier
from thinkprm_jax.verifier.registry import Registration, register
from thinkprm_jax.verifier.settings import VerifierSettings, setting

SUM = re.compile(r"(\d+) ([+*-]) (\d+) = (\d+)")
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@dataclass(frozen=True, kw_only=True)
class SumsSettings(VerifierSettings):
    kind: ClassVar[str] = "sums"
    needs_model: ClassVar[bool] = False

    unsure: float = setting(0.6, "score of a step without a sum")


class SumsVerifier(ImmediateVerifier):
    Settings = SumsSettings
    settings: SumsSettings

    def __init__(self, settings: SumsSettings) -> None:
        self.settings = settings

    @classmethod
    def load(cls, settings: Any, **_: Any) -> SumsVerifier:
        return cls(settings)

    def judge(self, problem: str, steps: list[str]) -> Verdict:
        scores = itertools.accumulate(map(self.step_score, steps), min)  # after an error nothing is right
        return Verdict.of_scores(problem, list(scores))

    def step_score(self, step: str) -> float:
        sums = SUM.findall(step)
        if not sums:
            return self.settings.unsure
        return float(all(OPERATIONS[sign](int(a), int(b)) == int(c) for a, sign, b, c in sums))


register(Registration("sums", f"{__name__}:SumsVerifier"))

if __name__ == "__main__":
    sys.exit(thinkprm(["score", "--verifier", "sums", "--unsure", "0.7"]))
