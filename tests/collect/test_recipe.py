"""The recipe of a collection, and the labelled prefixes that its sources give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from thinkprm_jax.collect.recipe import (
    ArithmeticSource,
    CollectionSource,
    CollectRecipe,
    GenerationFiles,
    Prm800kPrefixes,
    SourceCounts,
    read_generations,
    select_prefixes,
)
from thinkprm_jax.errors import UserError
from thinkprm_jax.recipe import dump_recipe, load_recipe

ROOT = Path(__file__).parents[2]


def prm_row(problem: str, *ratings: int, finish: str = "solution") -> dict[str, Any]:
    """A phase 2 row whose generated solution has these ratings."""
    steps = [f"{problem} step {index}" for index in range(len(ratings))]
    stages = [
        {
            "completions": [{"text": text, "rating": rating}],
            "human_completion": None,
            "chosen_completion": None if rating == -1 else 0,
        }
        for text, rating in zip(steps, ratings, strict=True)
    ]
    question = {"problem": problem, "pre_generated_steps": steps}
    return {"question": question, "label": {"steps": stages, "finish_reason": finish}}


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


ROWS = [
    prm_row(name, *ratings) for name, ratings in (("a", (1, 0, 1)), ("b", (1, -1)), ("c", (-1,)), ("d", (1, 1)))
]


def select(files: tuple[str, ...], seed: int = 0, limit: int | None = None, **settings: Any) -> list[tuple]:
    source = CollectionSource(prm800k=Prm800kPrefixes(files, **settings), limit=limit)
    return [(prefix.problem, len(prefix.steps), prefix.correct) for prefix in select_prefixes(source, seed)[0]]


def test_whole_paths_end_with_the_first_error(tmp_path):
    found = select((write(tmp_path / "x", *ROWS),))
    assert sorted(found) == [("a", 3, True), ("b", 2, False), ("c", 1, False), ("d", 2, True)]


def test_cuts_are_shorter_distinct_and_without_error(tmp_path):
    file = write(tmp_path / "x", prm_row("a", 1, 1, 1, 1, -1), prm_row("b", 1, 1))
    cut = select((file,), whole=False, cuts=3)
    lengths = [length for problem, length, _ in cut if problem == "a"]
    assert len(lengths) == len(set(lengths)) == 3
    assert max(lengths) <= 4
    assert [item for item in cut if item[0] == "b"] == [("b", 1, True)]  # there is only one place
    assert all(correct for _, _, correct in cut)
    assert len({tuple(select((file,), seed, whole=False, cuts=3)) for seed in range(8)}) > 1


def test_the_order_depends_on_texts_and_seed_alone(tmp_path):
    files = write(tmp_path / "x", *ROWS[:2]), write(tmp_path / "y", *ROWS[2:])
    turned = write(tmp_path / "z", *reversed(ROWS))
    assert select(files, cuts=1) == select((turned,), cuts=1)
    assert len({tuple(select(files, seed)) for seed in range(8)}) > 1


def test_a_limit_takes_the_first_of_that_order(tmp_path):
    file = write(tmp_path / "x", *ROWS)
    for limit in (1, 3, 9):
        assert select((file,), limit=limit) == select((file,))[:limit]


def test_counts_say_what_was_left_out(tmp_path):
    file = write(tmp_path / "x", *ROWS, ROWS[0], prm_row("bad", 1, finish="bad_problem"))
    source = CollectionSource(prm800k=Prm800kPrefixes((file,)), limit=3)
    _, counts = select_prefixes(source, 0)
    assert (counts.rows, counts.prefixes) == (6, 5)
    assert counts.dropped == {"duplicate prefixes": 1, "bad problem": 1, "beyond the limit": 1}


def test_texts_are_kept_apart_when_duplicates_are_sought(tmp_path):
    rows = [prm_row("a", 1) for _ in range(2)]
    for row, texts in zip(rows, (["x", "yz"], ["xy", "z"]), strict=True):
        row["question"]["pre_generated_steps"] = texts
        row["label"]["steps"] = [
            {"completions": [{"text": text, "rating": 1}], "chosen_completion": 0, "human_completion": None}
            for text in texts
        ]
    assert len(select((write(tmp_path / "x", *rows),))) == 2


def test_arithmetic_prefixes_have_the_labels_of_the_task():
    from thinkprm_jax.arithmetic.task import example

    source = CollectionSource(arithmetic=ArithmeticSource(5, seed=3, split="unseen", start=2))
    prefixes, _ = select_prefixes(source, 0)
    expected = {chain.problem: chain.labels for chain in (example(3, index, "unseen") for index in range(2, 7))}
    assert {prefix.problem: prefix.labels for prefix in prefixes} == expected


def test_a_source_without_labels_is_refused(tmp_path):
    file = write(tmp_path / "x", prm_row("bad", 1, finish="bad_problem"))
    with pytest.raises(UserError, match="no labelled prefix"):
        select((file,))


def generations(folder: Path, zero: str | None = None, **changes: Any) -> list[tuple[list[str], list[int]]]:
    row = {"problem": "p", "prefix": "one\ntwo", "traj_gt_labels": [1, 1], "generations": ["x", "y"]}
    row |= changes
    row = {name: value for name, value in row.items() if value is not ...}
    found = read_generations(GenerationFiles((write(folder / "g", row),), zero=zero), SourceCounts())  # type: ignore
    return [(item.prefix.steps, item.prefix.labels) for item in found]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (["one", "two"], [1, 1])),
        ({"prefix": "one\ntwo\n\n# Answer\n\n2\n"}, (["one", "two\n\n# Answer\n\n2"], [1, 1])),
        ({"prefix": "Step 1: one\nmore\nStep 2: two"}, (["one\nmore", "two"], [1, 1])),
        ({"prefix": "one\n\ntwo"}, (["one", "two"], [1, 1])),
        ({"prefix": ..., "prefix_steps": ["a\nb", "c"]}, (["a\nb", "c"], [1, 1])),
        ({"traj_gt_labels": ["+", "-"]}, (["one", "two"], [1, 0])),
        ({"traj_gt_labels": [True, False]}, (["one", "two"], [1, 0])),
        ({"traj_gt_labels": [1.0, -1]}, (["one", "two"], [1, 0])),
        ({"traj_gt_labels": [-1, 1]}, (["one", "two"], [0, 0])),  # what builds on an error is not correct
        ({"traj_gt_labels": [-1]}, (["one", "two"], [0, 0])),
        ({"traj_gt_labels": [0, 1], "zero": "neutral"}, (["one", "two"], [1, 1])),
        ({"traj_gt_labels": [1, 0], "zero": "incorrect"}, (["one", "two"], [1, 0])),
    ],
)
def test_generations_made_elsewhere(tmp_path, changes, expected):
    assert generations(tmp_path, **changes) == [expected]


@pytest.mark.parametrize("labels", [[], [1], [1, 1, 1], [1, 1, -1]])
def test_steps_and_labels_that_do_not_match_are_counted(tmp_path, labels):
    row = {"problem": "p", "prefix": "one\ntwo", "traj_gt_labels": labels, "generations": ["x"]}
    counts = SourceCounts()
    assert not list(read_generations(GenerationFiles((write(tmp_path / "g", row),)), counts))
    assert (counts.rows, counts.prefixes, counts.dropped["steps and labels do not match"]) == (1, 0, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"traj_gt_labels": [1, 0]}, "g:1: traj_gt_labels[1] is 0: say in source.generations.zero"),
        ({"traj_gt_labels": [1, 2]}, 'traj_gt_labels[1] is 2; it must be "+", "-", 1 or -1'),
        ({"traj_gt_labels": [1, None]}, "traj_gt_labels[1] is null"),
        ({"traj_gt_labels": [1, [1]]}, "traj_gt_labels[1] is [1]"),
        ({"generations": "x"}, "`generations` must be a list of texts, it is a text"),
        ({"generations": ["x", 1]}, "`generations[1]` must be a text, it is a number"),
        ({"prefix": ...}, "the field `prefix` is missing"),
        ({"prefix_steps": [1, 2]}, "`prefix_steps[0]` must be a text, it is a number"),
        ({"problem": None}, "`problem` must be a text, it is null"),
    ],
)
def test_rows_of_generations_that_are_not_as_described(tmp_path, changes, said):
    with pytest.raises(UserError) as error:
        generations(tmp_path, **changes)
    assert said in str(error.value)


RECIPE = {
    "output": "out",
    "source": {"arithmetic": {"examples": 2}},
    "teacher": {"model": "mini"},
}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("source.generations.files=[g]", "give one of prm800k, arithmetic and generations"),
        ("teacher=", "teacher is needed"),
        ("teacher.chains=0", "chains must be at least 1"),
        ("teacher.temperature=0", "greedy chains are all the same"),
        ("teacher.temperature=.nan", "temperature must be a number"),
        ("teacher.top_p=0", "top_p must lie in (0, 1]"),
        ("teacher.promt=strict", "did you mean teacher.prompt?"),
        ("teacher.prompt=colection", "did you mean collection?"),
        ("filter.labels=proces", "did you mean process?"),
        ("filter.target=1", "target 1 cannot be balanced"),
        ("source.arithmetic.split=unsen", "did you mean unseen?"),
        ("wave=0", "wave must be at least 1"),
        ("mesh.data=0", "data must be at least 1, or -1"),
    ],
)
def test_recipes_that_cannot_work_are_refused(tmp_path, override, said):
    path = tmp_path / "r.yaml"
    path.write_text(json.dumps(RECIPE))
    with pytest.raises(UserError) as error:
        load_recipe(CollectRecipe, path, [override])
    assert said in str(error.value)


def test_system_needs_a_prompt_that_has_one(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(json.dumps(RECIPE))
    assert load_recipe(CollectRecipe, path, ["teacher.system=Be kind."]).teacher.system == "Be kind."
    with pytest.raises(UserError, match="no system turn"):
        load_recipe(CollectRecipe, path, ["teacher.system=Be kind.", "teacher.prompt=verification"])


def test_generations_need_a_tokenizer_and_no_teacher(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(json.dumps({"output": "out", "source": {"generations": {"files": ["g"]}}}))
    with pytest.raises(UserError, match="tokenizer is needed"):
        load_recipe(CollectRecipe, path)
    load_recipe(CollectRecipe, path, ["tokenizer=mini"])
    with pytest.raises(UserError, match="which has its own chains"):
        load_recipe(CollectRecipe, path, ["tokenizer=mini", "teacher.model=mini"])


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "collect").glob("*.yaml")), ids=lambda path: path.name)
def test_recipes_of_the_project_are_valid(tmp_path, path):
    recipe = load_recipe(CollectRecipe, path)
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(CollectRecipe, resolved) == recipe


def test_the_papers_recipe_has_the_papers_settings():
    recipe = load_recipe(CollectRecipe, ROOT / "configs" / "collect" / "thinkprm_1k.yaml")
    assert recipe.teacher is not None
    assert recipe.teacher.model == "Qwen/QwQ-32B-Preview"
    assert (recipe.teacher.prompt, recipe.teacher.chains, recipe.teacher.temperature) == ("collection", 4, 0.1)
    assert recipe.filter.labels == "process"
    assert (recipe.filter.max_tokens, recipe.filter.target, recipe.filter.balance) == (4096, 1000, True)
