"""Switches for what search-and-learn and the original's client do otherwise: docs/differences.md."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from support import tiny_model
from support.scripted_engine import ScriptedEngine, branches, prefix_of
from thinkprm_jax.errors import UserError
from thinkprm_jax.protocol.prompts import VERIFICATION_PROMPT
from thinkprm_jax.recipe import plain_overrides
from thinkprm_jax.search.beam_search import beam_search
from thinkprm_jax.search.dvts import dvts
from thinkprm_jax.search.engine import Beam, Judgement, Problem, SearchResult, SearchSettings
from thinkprm_jax.search.models import describe
from thinkprm_jax.search.problems import load_tasks
from thinkprm_jax.search.recipe import SearchRecipe, load_search_recipe
from thinkprm_jax.search.results import completion_row

SETTINGS = SearchSettings(n=4, beam_width=2, num_iterations=6, max_tokens=1000, as_search_and_learn=True)


def search(approach, engine: ScriptedEngine, **changes) -> SearchResult:
    settings = dataclasses.replace(SETTINGS, **changes)
    [(_, result)] = approach([Problem(0, "p")], engine, settings)
    return result


def texts(result: SearchResult) -> list[str]:
    return [beam.text for beam in result.solutions]


# Beam search


def test_beam_search_makes_n_candidates_in_every_round_whatever_has_ended() -> None:
    tree = {"": ["early", "b\n\n", "a\n\n", "c\n\n"], "b\n\n": ["end b"], "a\n\n": ["end a"], "c\n\n": ["end c"]}
    engine = ScriptedEngine(branches(tree), prefix_of("b\n\nend b"))
    result = search(beam_search, engine)
    assert [len(call) for call in engine.asked] == [4, 4]  # our own rules would ask for 3 after one has ended
    # n / beam_width = 2 beams go on: the good one, and the first of those that are as bad as each other.
    assert sorted(texts(result)) == ["a\n\nend a", "b\n\nend b", "b\n\nend b", "early"]


def test_the_first_n_ended_solutions_come_out_or_the_n_best() -> None:
    tree = {"": ["x", "y", "b\n\n", "b\n\n"], "b\n\n": ["end b", "end c"]}
    made = [
        texts(search(beam_search, ScriptedEngine(branches(tree), prefix_of("b\n\nend b")), sort_completed=best))
        for best in (False, True)
    ]
    assert made[0][:2] == ["x", "y"]
    assert made[1][:2] == ["b\n\nend b", "b\n\nend b"]
    assert [len(each) for each in made] == [4, 4]


def test_fewer_ended_solutions_are_repeated() -> None:
    def write(problem: str, text: str, number: int) -> str:
        return "end" if number == 0 and not text else "loop\n\n"

    result = search(beam_search, ScriptedEngine(write), num_iterations=2, max_tokens=12)
    assert len(result.solutions) == 4
    result = search(beam_search, ScriptedEngine(lambda *_: "end"), n=4)
    assert texts(result) == ["end"] * 4


# DVTS


def test_a_tree_gives_all_candidates_of_its_last_round() -> None:
    tree = {"": ["b\n\n", "x"], "b\n\n": ["end b", "loop\n\n"]}
    engine = ScriptedEngine(branches(tree), prefix_of("b\n\nend b"))
    result = search(dvts, engine, n=2)
    assert [len(call) for call in engine.asked] == [2, 2]  # `x` took no place
    assert texts(result) == ["b\n\nend b", "b\n\nloop\n\n"]  # the second one has not ended
    assert [beam.finish for beam in result.solutions] == ["stop", None]


def test_a_tree_ends_where_its_best_candidate_has_a_box() -> None:
    tree = {"": ["so \\boxed{4}.\n\n", "a\n\n"], "a\n\n": ["end"]}
    engine = ScriptedEngine(branches(tree), prefix_of("so \\boxed{4}.\n\n"))
    result = search(dvts, engine, n=2)
    assert len(engine.asked) == 1
    assert texts(result) == ["so \\boxed{4}.\n\n", "a\n\n"]
    own = search(
        dvts, ScriptedEngine(branches({**tree, "so \\boxed{4}.\n\n": ["end"]})), n=2, as_search_and_learn=False
    )
    assert {beam.finish for beam in own.solutions} == {"stop"}


# Votes


@pytest.mark.parametrize(("strategy", "chosen"), [(None, (0.5, 0.4)), ("last", (0.9, 0.4)), ("min", (0.5, 0.4))])
def test_votes_may_use_another_aggregate_than_the_search(strategy, chosen) -> None:
    recipe = SearchRecipe(
        agg_strategy="min", vote_strategy=strategy, dataset_name="arithmetic", num_samples=1, n=2
    )
    [task] = load_tasks(recipe)
    scores = [(0.5, 0.9), (0.6, 0.4)]
    beams = [
        Beam(task.problem, text=text, judgement=Judgement(each)) for text, each in zip("ab", scores, strict=True)
    ]
    row = completion_row(task, SearchResult(beams), recipe)
    assert row.agg_scores == chosen
    assert row.pred == "a"  # by the search's own strategy, min(0.5, 0.9) against min(0.6, 0.4)


# The verifier


@pytest.fixture(scope="module")
def prm(tmp_path_factory) -> str:
    return str(tiny_model.save_folder(tmp_path_factory.mktemp("prm"), layers=1))


def test_the_texts_of_the_originals_recipes_reach_the_verifier(prm: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        'prm_predecision_string: "\\nRight? "\nprm_label_categories: "right,wrong"\nprm_score_label_idx: 1\n'
        'prm_verifier_instruction: "Look again."\n'
    )
    said: list[str] = []
    recipe = load_search_recipe(tmp_path / "r.yaml", [f"prm_path={prm}"], said.append)
    found = describe(recipe)
    assert not said
    assert (found.decision, found.labels, found.score_label) == ("\nRight? ", ("right", "wrong"), 1)
    assert found.prompt.endswith("{solution}\n\nLook again.")
    assert found.stamp["labels"] == ["right", "wrong"]


def test_a_verifier_without_such_texts_refuses_them_unless_they_are_the_originals_own(prm: str) -> None:
    common = {"prm_path": prm, "prm_type": "disc_prm"}
    describe(
        SearchRecipe(**common, prm_predecision_string="\nIs the solution correct? ", prm_label_categories="yes,no")
    )
    for changed in (
        {"prm_label_categories": "a,b"},
        {"prm_predecision_string": "So?"},
        {"prm_verifier_instruction": "x"},
    ):
        [(name, value)] = changed.items()
        with pytest.raises(UserError, match=re.escape(f"{name} {value!r}: a verifier of kind disc_prm has no")):
            describe(SearchRecipe(**common, **changed))


def test_the_default_texts_are_those_of_the_protocol(prm: str) -> None:
    assert not {"decision", "labels", "prompt", "opening"} & set(describe(SearchRecipe(prm_path=prm)).stamp)
    assert describe(SearchRecipe(prm_path=prm)).prompt == VERIFICATION_PROMPT


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (8192, None)),
        ({"max_verification_length": 300}, (300, None)),
        ({"max_verification_length": 300, "verification_budget": "round"}, (600, 280)),
        ({"max_verification_length": 300, "verification_budget": "round", "max_rounds": 3}, (1200, 280)),
        ({"verification_budget": "round", "max_verification_tokens": 50}, (16384, 50)),
    ],
)
def test_the_length_bounds_the_chain_or_each_of_its_rounds(prm: str, fields: dict, expected: tuple) -> None:
    found = describe(SearchRecipe(prm_path=prm, **fields))
    assert (found.max_length, found.max_gen_tokens) == expected


# Recipes


@pytest.mark.parametrize("value", ["none", "None", " NONE "])
def test_no_chat_template_of_ones_own_may_be_called_none(value: str) -> None:
    assert SearchRecipe(custom_chat_template=value).custom_chat_template is None


def test_overrides_may_be_written_with_dashes(tmp_path: Path) -> None:
    arguments = plain_overrides(["r.yaml", "--n=8", "--custom_chat_template=none", "lookahead=1", "--help"])
    assert arguments == ["r.yaml", "n=8", "custom_chat_template=none", "lookahead=1", "--help"]
    assert plain_overrides(["--mesh=fsdp=4", "--seed=3"], ["--mesh"]) == ["--mesh=fsdp=4", "seed=3"]
    assert plain_overrides(["--topo=v5e:4x4"], ["--topology"]) == ["--topo=v5e:4x4"]


def test_lookahead_scores_nothing_in_the_originals_beam_search() -> None:
    both = {"search_rules": "search_and_learn", "lookahead": 2}
    assert SearchRecipe(approach="beam_search", **both).settings.lookahead == 0
    assert SearchRecipe(approach="dvts", **both).settings.lookahead == 2
    assert SearchRecipe(approach="beam_search", lookahead=2).settings.lookahead == 2


def test_an_unknown_kind_is_named_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("n: 4\nprm_type: guess\n")
    with pytest.raises(UserError, match=r"r\.yaml, line 1: there is no verifier 'guess'"):
        load_search_recipe(tmp_path / "r.yaml")
