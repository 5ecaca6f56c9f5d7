"""Verifier compute: plans of a sweep, its settings, and what is compared with what."""

from __future__ import annotations

import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.runner import JudgedCases
from thinkprm_jax.evaluation.summary import FIRST_ERROR
from thinkprm_jax.evaluation.sweep import SweepSetting, compare_settings, plan_sweep, sweep_json
from thinkprm_jax.records.evaluation import Outcome


def outcomes(predicted: list[int], tokens: int = 10) -> list[Outcome]:
    truth = [0, 0, -1, -1]
    return [Outcome(t, p, 0.5, 1, 1, 1, 1, tokens) for t, p in zip(truth, predicted, strict=True)]


def test_n_needs_one_run_and_rounds_one_each():
    runs = plan_sweep(["n=4,1,2", "rounds=1,3"])
    assert [(run.name, run.values) for run in runs] == [
        ("n=4", (1, 2, 4)),
        ("rounds=1", (1,)),
        ("rounds=3", (3,)),
    ]
    assert [run.change for run in runs] == [{"n": 4}, {"rounds": 1}, {"rounds": 3}]


@pytest.mark.parametrize("text", ["m=1", "n=", "n=0", "n=1,x", "n", "rounds=-1"])
def test_a_bad_sweep_is_explained(text):
    with pytest.raises(UserError, match="--sweep"):
        plan_sweep([text])


def test_a_sweep_twice_is_refused():
    with pytest.raises(UserError, match="--sweep n is given twice"):
        plan_sweep(["n=1", "n=2"])


def test_settings_of_n_are_those_of_its_first_chains():
    one, two = outcomes([0, 0, 0, 0]), outcomes([0, 0, -1, -1], tokens=20)
    judged = JudgedCases(two, {1: one, 2: two}, {})
    (run,) = plan_sweep(["n=1,2"])
    settings = [setting for setting, _ in run.settings({"model": "mini", "n": 2}, judged)]
    assert [(s.name, s.verifier["n"], s.outcomes) for s in settings] == [("n=1", 1, one), ("n=2", 2, two)]
    assert [s.tokens.value for s in settings] == [10, 20]


def test_the_time_of_fewer_chains_is_said_to_be_that_of_their_run():
    judged = JudgedCases([], {1: [], 2: []}, {"seconds": 8.0})
    (run,) = plan_sweep(["n=1,2"])
    assert [part.speed for _, part in run.settings({}, judged)] == 2 * [{"seconds": 8.0, "speed_of": "n=2"}]


def test_what_costs_the_same_is_compared():
    good, bad = outcomes([0, 0, -1, -1]), outcomes([0, -1, -1, 0])
    settings = [
        SweepSetting("n", 1, {}, bad),
        SweepSetting("n", 2, {}, good),
        SweepSetting("rounds", 1, {}, bad),
        SweepSetting("rounds", 2, {}, bad),
    ]
    found = compare_settings(settings, [FIRST_ERROR])
    gains = {(gain.ours.name, gain.theirs.name): gain.figures["first_error_f1"].value for gain in found}
    assert gains == {
        ("n=2", "n=1"): 0.5,
        ("rounds=2", "rounds=1"): 0.0,
        ("n=1", "rounds=1"): 0.0,
        ("n=2", "rounds=2"): 0.5,
    }
    content = sweep_json(settings, [FIRST_ERROR], found)
    assert [row["figures"]["first_error_f1"]["value"] for row in content["settings"]] == [0.5, 1.0, 0.5, 0.5]
    assert content["differences"][0]["over"] == "n=1"
