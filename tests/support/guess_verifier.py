"""A kind of verifier that knows nothing and needs no device, for tests of what stands around one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import pytest

from thinkprm_jax.verifier import registry
from thinkprm_jax.verifier.base import Verdict
from thinkprm_jax.verifier.host import HostVerifier
from thinkprm_jax.verifier.registry import Registration, register
from thinkprm_jax.verifier.settings import VerifierSettings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuessSettings(VerifierSettings):
    kind: ClassVar[str] = "guess"
    needs_model: ClassVar[bool] = False

    answer: float = setting(0.5, "the score of every step")
    mood: str = setting("calm", "of no use", stamped="never")


class Guess(HostVerifier):
    Settings = GuessSettings
    settings: GuessSettings

    def judge(self, problem: str, steps: Sequence[str]) -> Verdict:
        return Verdict.of_scores(problem, [self.settings.answer] * len(steps))


def register_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind, for a test."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    register(Registration("guess", f"{__name__}:Guess"))
