"""A kind of verifier of your own: it does the sums of a step again, without any model.

    python examples/own_verifier.py

A kind is a settings class, a verifier class and a registration; then every program takes it by its name. A field
of the settings is an option, a key of search recipes and a part of the stamp on every row.
"""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from thinkprm_jax import Verdict
from thinkprm_jax.cli import main as thinkprm
from thinkprm_jax.verifier.host import HostVerifier
from thinkprm_jax.verifier.registry import Registration, register
from thinkprm_jax.verifier.settings import VerifierSettings, setting

SUM = re.compile(r"(\d+) ([+*-]) (\d+) = (\d+)")
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@dataclass(frozen=True, kw_only=True)
class SumsSettings(VerifierSettings):
    kind: ClassVar[str] = "sums"
    needs_model: ClassVar[bool] = False

    unsure: float = setting(0.6, "score of a step without a sum")


class SumsVerifier(HostVerifier):
    Settings = SumsSettings
    settings: SumsSettings

    def judge(self, problem: str, steps: Sequence[str]) -> Verdict:
        scores = [self.step_score(step) for step in steps]
        scores = [min(scores[: number + 1]) for number in range(len(steps))]  # an error stays
        return Verdict.of_scores(problem, scores)

    def step_score(self, step: str) -> float:
        sums = SUM.findall(step)
        if not sums:
            return self.settings.unsure
        return float(all(OPERATIONS[sign](int(a), int(b)) == int(c) for a, sign, b, c in sums))


register(Registration("sums", f"{__name__}:SumsVerifier"))

if __name__ == "__main__":
    sys.exit(thinkprm(["score", "--verifier", "sums", "--unsure", "0.7"]))
