"""Running a verifier over cases: what is shared between its settings, and what a stopped run keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import tiny_model
from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.results import EvaluationCase
from thinkprm_jax.evaluation.runner import VerifierLoader, judge_all
from thinkprm_jax.verifier.registry import verifier_settings
from thinkprm_jax.verifier.settings import VerifierSettings

CASES = [EvaluationCase(f"{number} + 1?", (f"It is {number + 1}.", "So."), number % 3 - 1) for number in range(3)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model.save_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def loader() -> VerifierLoader:
    return VerifierLoader()


def described(model: Path, **settings) -> VerifierSettings:
    settings = {"max_length": 512, "max_gen_tokens": 12, "slots": 4, "temperature": 0.6, **settings}
    return verifier_settings(model, kind="thinkprm", **settings)


def test_first_chains_are_those_of_smaller_n(model, loader):
    three = judge_all(loader, described(model, n=3), CASES)
    assert sorted(three.of_first) == [1, 2, 3]
    assert three.of_first[3] == three.outcomes
    for n in (1, 2):
        alone = judge_all(loader, described(model, n=n), CASES)
        for ours, theirs in zip(three.of_first[n], alone.outcomes, strict=True):
            assert ours.score == pytest.approx(theirs.score, abs=1e-5)
            assert (ours.tokens, ours.chains) == (theirs.tokens, theirs.chains)


def test_settings_of_one_model_share_its_sampler(model, loader):
    first = loader.load(described(model, n=2))
    second = loader.load(described(model, rounds=2))
    assert second.sampler is first.sampler
    assert (second.n, second.n_thinking_rounds) == (1, 2)


def test_a_stopped_run_goes_on_with_all_of_its_chains(model, loader, tmp_path):
    details, spec = tmp_path / "details.jsonl", described(model, n=2)
    whole = judge_all(loader, spec, CASES, details)
    lines = details.read_bytes().splitlines(keepends=True)
    assert all(len(json.loads(line)["outcomes_of_first"]) == 1 for line in lines)
    details.write_bytes(b"".join(lines[:2]))
    again = judge_all(loader, spec, CASES, details)
    assert again.speed["judged_now"] == 1
    assert [o.tokens for o in again.of_first[1]] == [o.tokens for o in whole.of_first[1]]


def test_nothing_is_loaded_where_nothing_is_missing(model, loader, tmp_path):
    class NoLoader(VerifierLoader):
        def load(self, spec):
            raise AssertionError("loaded")

    details, spec = tmp_path / "details.jsonl", described(model)
    whole = judge_all(loader, spec, CASES, details)
    assert judge_all(NoLoader(), spec, CASES, details).outcomes == whole.outcomes


def test_a_failed_solution_is_counted_at_every_n(model, loader):
    cases = [CASES[0], EvaluationCase("long " * 400, ("a",), 0)]
    found = judge_all(loader, described(model, n=2), cases)
    assert found.status == 1
    assert [found.of_first[n][1].error is not None for n in (1, 2)] == [True, True]
    assert [found.of_first[n][1].chains for n in (1, 2)] == [1, 2]


def test_majority_is_no_verifier(loader):
    with pytest.raises(UserError, match="majority is no verifier"):
        judge_all(VerifierLoader(), verifier_settings(kind="majority"), CASES)
