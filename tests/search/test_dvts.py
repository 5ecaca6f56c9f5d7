"""DVTS on a scripted engine."""

from __future__ import annotations

import dataclasses

import pytest

from support.scripted_engine import ScriptedEngine, branches, prefix_of
from thinkprm_jax.search.dvts import dvts
from thinkprm_jax.search.engine import Problem, SearchResult, SearchSettings

BEST = "b\n\nbb\n\nend b"
TREE = {
    "": ["a\n\n", "b\n\n"],
    "a\n\n": ["aa\n\n", "ab\n\n"],
    "a\n\naa\n\n": ["end a", "end aa"],
    "b\n\n": ["ba\n\n", "bb\n\n"],
    "b\n\nbb\n\n": ["end x", "end b"],
}
SETTINGS = SearchSettings(n=4, beam_width=2, num_iterations=10, max_tokens=1000)


def search(engine: ScriptedEngine, problems: list[str], **changes) -> list[SearchResult]:
    settings = dataclasses.replace(SETTINGS, **changes)
    found = dict(dvts([Problem(i, text) for i, text in enumerate(problems)], engine, settings))
    return [found[index] for index in range(len(problems))]


def texts(result: SearchResult) -> list[str]:
    return [beam.text for beam in result.solutions]


def test_the_best_path_is_found() -> None:
    (result,) = search(ScriptedEngine(branches(TREE), prefix_of(BEST)), ["p"])
    assert max(result.solutions, key=lambda beam: beam.score("last")).text == BEST


def test_trees_do_not_compare_with_each_other() -> None:
    # The second tree sees only "a" at its root; a beam search would leave it for "b".
    tree = {**TREE, "": ["b\n\n", "b\n\n", "a\n\n", "a\n\n"]}
    (result,) = search(ScriptedEngine(branches(tree), prefix_of(BEST)), ["p"])
    assert {text[0] for text in texts(result)} == {"a", "b"}


def test_only_finished_solutions_come_out() -> None:
    # One tree ends, the other never does.
    tree = {**TREE, "": ["b\n\n", "b\n\n", "loop\n\n", "loop\n\n"]}

    def write(problem: str, text: str, number: int) -> str:
        return "loop\n\n" if text.startswith("loop") else branches(tree)(problem, text, number)

    (result,) = search(ScriptedEngine(write, prefix_of(BEST)), ["p"], max_tokens=60, num_iterations=4)
    assert {beam.finish for beam in result.solutions} == {"stop"}
    assert all(text.startswith("b") for text in texts(result))


def test_nothing_finished_is_a_result() -> None:
    engine = ScriptedEngine(lambda problem, text, number: "loop\n\n")
    (result,) = search(engine, ["p"], max_tokens=60, num_iterations=3)
    assert result.solutions == []
    assert result.error is None
    assert result.generated_tokens > 0


def test_a_tree_ends_with_its_best_candidate() -> None:
    engine = ScriptedEngine(branches({"": ["end", "b\n\n"]}), lambda problem, text: [float(text == "end")])
    (result,) = search(engine, ["p"])
    assert len(engine.asked) == 1
    assert texts(result) == ["end", "end"]


def test_a_finished_candidate_is_kept_though_another_goes_on() -> None:
    tree = {"": ["early", "b\n\n"], "b\n\n": ["bb\n\n"], "b\n\nbb\n\n": ["end b"]}
    engine = ScriptedEngine(branches(tree), prefix_of(BEST))
    (result,) = search(engine, ["p"], n=2)
    assert texts(result)[0] == "early"
    assert [len(call) for call in engine.asked] == [2, 1, 1]  # it holds one of the tree's two places


def test_all_problems_and_trees_of_a_round_are_one_call() -> None:
    engine = ScriptedEngine(branches(TREE), prefix_of("a\n\naa\n\nend a"))
    search(engine, ["p", "q"])
    assert [len(call) for call in engine.asked] == [8, 8, 8]
    assert len(engine.judged) == 3


def test_the_last_round_runs_to_the_end() -> None:
    engine = ScriptedEngine(branches(TREE), prefix_of(BEST))
    (result,) = search(engine, ["p"], num_iterations=1)
    assert not any(item.one_step for item in engine.asked[0])
    assert len(result.solutions) == 4


def test_candidates_have_seeds_of_their_own() -> None:
    engine = ScriptedEngine(branches(TREE), prefix_of(BEST))
    search(engine, ["p"])
    for call in engine.asked:
        assert len({item.seed for item in call}) == len(call)


def test_tokens_are_counted() -> None:
    (result,) = search(ScriptedEngine(branches(TREE), prefix_of(BEST)), ["p"])
    assert [beam.tokens for beam in result.solutions] == [len(text) for text in texts(result)]
    assert result.generated_tokens == 4 * 3 + 4 * 4 + 4 * 5


def test_a_problem_that_cannot_run_leaves_the_others_alone() -> None:
    engine = ScriptedEngine(branches(TREE), prefix_of(BEST))
    engine.failing = {"q"}
    good, bad = search(engine, ["p", "q"])
    assert bad.error == "the prompt does not fit"
    assert good.solutions


def test_n_must_be_whole_trees() -> None:
    with pytest.raises(ValueError, match="multiple of beam_width"):
        search(ScriptedEngine(branches(TREE)), ["p"], n=3)
