"""Best-of-N and plain sampling on a scripted engine."""

from __future__ import annotations

import dataclasses

from support.scripted_engine import ScriptedEngine
from thinkprm_jax.search.best_of_n import best_of_n, judge_solutions, sample
from thinkprm_jax.search.engine import Beam, Problem, SearchResult, SearchSettings

SETTINGS = SearchSettings(n=4, max_tokens=100)
PROBLEMS = [Problem(0, "p"), Problem(1, "q")]


def write(problem: str, text: str, number: int) -> str:
    return f"{problem}{number}"


def score(problem: str, text: str) -> list[float]:
    return [0.5, int(text[1]) / 10]


def test_all_solutions_are_one_call_and_all_verdicts_another() -> None:
    engine = ScriptedEngine(write, score)
    results = dict(best_of_n(PROBLEMS, engine, SETTINGS))
    assert [[beam.text for beam in results[i].solutions] for i in (0, 1)] == [
        ["p0", "p1", "p2", "p3"],
        ["q0", "q1", "q2", "q3"],
    ]
    assert [len(call) for call in engine.asked] == [8]
    assert [len(call) for call in engine.judged] == [8]
    assert [beam.judgement.scores for beam in results[0].solutions] == [(0.5, i / 10) for i in range(4)]


def test_a_problem_comes_out_as_soon_as_it_is_judged() -> None:
    engine = ScriptedEngine(write, score)  # what it is asked last is judged first
    given = [SearchResult([Beam(problem, text=f"{problem.text}7")]) for problem in PROBLEMS]
    assert [index for index, _ in judge_solutions(given, engine)] == [1, 0]


def test_equal_solutions_are_judged_once_and_all_get_the_verdict() -> None:
    engine = ScriptedEngine(lambda problem, text, number: "same", lambda problem, text: [0.3])
    results = dict(best_of_n(PROBLEMS, engine, SETTINGS))
    assert [len(call) for call in engine.judged] == [2]
    assert results[0].verifications == 1
    assert [beam.score("last") for beam in results[0].solutions] == [0.3] * 4


def test_plain_sampling_judges_nothing() -> None:
    engine = ScriptedEngine(write, score)
    results = dict(sample(PROBLEMS, engine, SETTINGS))
    assert engine.judged == []
    assert results[1].generated_tokens == 8


def test_a_solution_without_end_says_so() -> None:
    engine = ScriptedEngine(lambda problem, text, number: "step\n\n", lambda problem, text: [0.3])
    results = dict(best_of_n(PROBLEMS, engine, dataclasses.replace(SETTINGS, max_tokens=10)))
    assert [beam.finish for beam in results[0].solutions] == ["length"] * 4
    assert [beam.tokens for beam in results[0].solutions] == [10] * 4


def test_a_problem_that_cannot_run_leaves_the_others_alone() -> None:
    engine = ScriptedEngine(write, score)
    engine.failing = {"p"}
    results = dict(best_of_n(PROBLEMS, engine, SETTINGS))
    assert results[0].error == "the prompt does not fit"
    assert len(results[1].solutions) == 4


def test_solutions_from_elsewhere_are_judged() -> None:
    engine = ScriptedEngine(write, score)
    given = [SearchResult([Beam(problem, text=f"{problem.text}7")]) for problem in PROBLEMS]
    results = dict(judge_solutions(given, engine))
    assert engine.asked == []
    assert results[1].solutions[0].judgement.scores == (0.5, 0.7)


def test_the_order_of_sampling_stays() -> None:
    engine = ScriptedEngine(write, score)
    results = dict(best_of_n(PROBLEMS, engine, dataclasses.replace(SETTINGS, sort_completed=True)))
    assert [beam.text for beam in results[0].solutions] == ["p0", "p1", "p2", "p3"]
