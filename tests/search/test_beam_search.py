"""Beam search on a scripted engine."""

from __future__ import annotations

import dataclasses

from support.scripted_engine import ScriptedEngine, branches, prefix_of
from thinkprm_jax.search.beam_search import beam_search
from thinkprm_jax.search.engine import Problem, SearchResult, SearchSettings

# Three steps deep; the second branch is the right one at every level, and the first is what sampling favours.
BEST = "b\n\nbb\n\nend b"
TREE = {
    "": ["a\n\n", "b\n\n", "a\n\n", "c\n\n"],
    "a\n\n": ["end a"],
    "c\n\n": ["end c"],
    "b\n\n": ["ba\n\n", "bb\n\n", "ba\n\n", "bc\n\n"],
    "b\n\nba\n\n": ["end x"],
    "b\n\nbc\n\n": ["end x"],
    "b\n\nbb\n\n": ["end x", "end b", "end x", "end y"],
}
SETTINGS = SearchSettings(n=4, beam_width=4, num_iterations=10, max_tokens=1000)


def search(engine: ScriptedEngine, problems: list[str], **changes) -> list[SearchResult]:
    settings = dataclasses.replace(SETTINGS, **changes)
    found = dict(beam_search([Problem(i, text) for i, text in enumerate(problems)], engine, settings))
    return [found[index] for index in range(len(problems))]


def texts(result: SearchResult) -> list[str]:
    return [beam.text for beam in result.solutions]


def test_the_best_path_is_found() -> None:
    (result,) = search(ScriptedEngine(branches(TREE), prefix_of(BEST)), ["p"])
    best = max(result.solutions, key=lambda beam: beam.score("last"))
    assert best.text == BEST


def test_the_verifier_decides() -> None:
    (result,) = search(ScriptedEngine(branches(TREE), prefix_of("c\n\nend c")), ["p"])
    assert texts(result) == ["c\n\nend c"] * 4


def test_all_problems_of_a_round_are_one_call() -> None:
    engine = ScriptedEngine(branches(TREE), prefix_of(BEST))
    search(engine, ["p", "q", "r"])
    assert [len(call) for call in engine.asked] == [12, 12, 12]
    assert len(engine.judged) == 3


def test_ended_beams_keep_their_places_and_are_not_extended() -> None:
    tree = {**TREE, "": ["a\n\n", "early", "b\n\n", "b\n\n"]}
    engine = ScriptedEngine(branches(tree), prefix_of(BEST))
    (result,) = search(engine, ["p"])
    assert texts(result)[0] == "early"
    assert len(result.solutions) == 4
    assert [len(call) for call in engine.asked] == [4, 3, 3]
    prefixes = {"".join(map(chr, item.prefix)) for call in engine.asked for item in call}
    assert "early" not in prefixes


def test_an_ended_beam_with_a_low_score_is_not_dropped() -> None:
    tree = {**TREE, "": ["b\n\n", "bad", "b\n\n", "b\n\n"]}
    (result,) = search(ScriptedEngine(branches(tree), prefix_of(BEST, bad=0.0)), ["p"])
    assert "bad" in texts(result)


def test_more_beams_go_on_with_a_smaller_width() -> None:
    engine = ScriptedEngine(branches(TREE), lambda problem, text: [{"a": 0.8, "b": 0.9}.get(text[0], 0.1)])
    search(engine, ["p"], beam_width=2)
    second = ["".join(map(chr, item.prefix)) for item in engine.asked[1]]
    assert second == ["b\n\n", "a\n\n", "b\n\n", "a\n\n"]


def test_duplicates_are_filtered_on_request() -> None:
    tree = {**TREE, "": ["a\n\n", "a\n\n", "b\n\n", "c\n\n"], "b\n\n": ["end b"]}
    score = {"a": 0.9, "b": 0.5, "c": 0.1}

    def parents(filter_duplicates: bool) -> set[str]:
        engine = ScriptedEngine(branches(tree), lambda problem, text: [score[text[0]]])
        search(engine, ["p"], beam_width=2, filter_duplicates=filter_duplicates)
        return {chr(item.prefix[0]) for item in engine.asked[1]}

    assert parents(False) == {"a"}
    assert parents(True) == {"a", "b"}


def test_equal_texts_are_judged_once() -> None:
    engine = ScriptedEngine(branches({"": ["a\n\n"], "a\n\n": ["end"]}))
    (result,) = search(engine, ["p"])
    assert [len(call) for call in engine.judged] == [1, 1]
    assert result.verifications == 2
    assert all(beam.judgement is not None for beam in result.solutions)


def test_the_last_round_runs_to_the_end() -> None:
    engine = ScriptedEngine(branches(TREE), prefix_of(BEST))
    (result,) = search(engine, ["p"], num_iterations=2)
    assert [item.one_step for call in engine.asked for item in call] == [True] * 4 + [False] * 4
    assert {beam.finish for beam in result.solutions} == {"stop"}


def test_nothing_finished_is_a_result() -> None:
    engine = ScriptedEngine(lambda problem, text, number: "and on\n\n")
    (result,) = search(engine, ["p"], num_iterations=3, max_tokens=50)
    assert [beam.finish for beam in result.solutions] == ["length"] * 4
    assert result.error is None


def test_tokens_end_a_beam_that_could_go_on() -> None:
    engine = ScriptedEngine(lambda problem, text, number: "x\n\n")
    (result,) = search(engine, ["p"], max_tokens=6)
    assert [len(call) for call in engine.asked] == [4, 4]  # 3 + 3 tokens
    assert [beam.tokens for beam in result.solutions] == [6] * 4


def test_tokens_are_counted() -> None:
    engine = ScriptedEngine(branches(TREE), prefix_of(BEST))
    (result,) = search(engine, ["p"])
    assert [beam.tokens for beam in result.solutions] == [len(text) for text in texts(result)]
    first, second, third = 4 * 3, 4 * 4, 4 * 5  # the tree's steps, dropped ones too
    assert result.generated_tokens == first + second + third
    assert result.verifier_tokens == 10 * result.verifications


def test_there_is_no_lookahead_unless_asked() -> None:
    engine = ScriptedEngine(branches(TREE), prefix_of(BEST))
    search(engine, ["p"])
    assert not any(item.greedy for call in engine.asked for item in call)


def test_what_was_looked_ahead_at_is_scored_and_not_kept() -> None:
    # "a" looks good, and what follows from it does not.
    tree = {**TREE, "a\n\n": ["awful\n\n"], "a\n\nawful\n\n": ["end"]}

    def score(problem: str, text: str) -> list[float]:
        return [0.0 if "awful" in text else 1.0 if text.startswith("a") else 0.5]

    engine = ScriptedEngine(branches(tree), score)
    (result,) = search(engine, ["p"], lookahead=1, num_iterations=2)
    assert [item.greedy for item in engine.asked[1]] == [True] * 4
    assert {text for _, text in engine.judged[0]} == {"a\n\nawful\n\n", "b\n\nba\n\n", "c\n\nend c"}
    assert {"".join(map(chr, item.prefix)) for item in engine.asked[2]} <= {"b\n\n", "c\n\n"}
    assert result.generated_tokens > sum(beam.tokens for beam in result.solutions)


def test_a_sample_depends_on_seed_problem_beam_and_round_only() -> None:
    def seeds(problems: list[Problem], seed: int = 42) -> list[list[int]]:
        engine = ScriptedEngine(branches(TREE), prefix_of(BEST))
        list(beam_search(problems, engine, dataclasses.replace(SETTINGS, seed=seed)))
        return [[item.seed for item in call if item.problem.number == 7] for call in engine.asked]

    alone = seeds([Problem(7, "p")])
    assert alone == seeds([Problem(1, "x"), Problem(7, "p"), Problem(3, "y")])
    assert alone != seeds([Problem(7, "p")], seed=43)
    flat = [seed for call in alone for seed in call]
    assert len(set(flat)) == len(flat)


def test_a_problem_that_cannot_run_leaves_the_others_alone() -> None:
    engine = ScriptedEngine(branches(TREE), prefix_of(BEST))
    engine.failing = {"q"}
    good, bad = search(engine, ["p", "q"])
    assert bad.error == "the prompt does not fit"
    assert bad.solutions == []
    assert len(good.solutions) == 4


def test_a_candidate_without_verdict_ranks_last() -> None:
    engine = ScriptedEngine(branches(TREE), prefix_of(BEST, good=0.0, bad=0.0))
    engine.unjudged = {"a\n\n", "c\n\n"}
    (result,) = search(engine, ["p"])
    assert all(text.startswith("b") for text in texts(result))


def test_solutions_are_sorted_on_request() -> None:
    tree = {**TREE, "": ["bad", "b\n\n", "b\n\n", "b\n\n"]}
    (result,) = search(ScriptedEngine(branches(tree), prefix_of(BEST)), ["p"], sort_completed=True)
    scores = [beam.score("last") for beam in result.solutions]
    assert scores == sorted(scores, reverse=True)


def test_an_end_behind_the_last_step_is_not_judged_again() -> None:
    engine = ScriptedEngine(branches({"": ["a\n\n"], "a\n\n": [""]}))
    (result,) = search(engine, ["p"])
    assert len(engine.judged) == 1
    assert all(beam.judgement is not None for beam in result.solutions)
