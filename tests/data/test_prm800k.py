"""Labelled paths out of PRM800K rows, both phases. The rows here are made up in the original schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from thinkprm_jax.data.prm800k import Prefix, Prm800kCounts, read_prm800k
from thinkprm_jax.errors import UserError


def stage(*ratings: int | None, chosen: int | None = None, human: str | None = None, name: str = "s") -> dict:
    completions = [{"text": f"{name}{i}", "rating": rating, "flagged": False} for i, rating in enumerate(ratings)]
    person = None if human is None else {"text": human, "rating": None, "source": "human", "flagged": False}
    return {"completions": completions, "human_completion": person, "chosen_completion": chosen}


def row(*stages: dict, planned: list[str] | None = None, finish: str = "solution") -> dict[str, Any]:
    question: dict[str, Any] = {"problem": "How many?", "ground_truth_answer": "1"}
    if planned is not None:
        question["pre_generated_steps"] = planned
    return {"question": question, "label": {"steps": list(stages), "total_time": 1, "finish_reason": finish}}


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in rows), encoding="utf-8")
    return path


def read(folder: Path, *rows: dict, **settings: Any) -> list[tuple[list[str], list[int]]]:
    return [(prefix.steps, prefix.labels) for prefix in read_prm800k(write(folder, *rows), **settings)]


def test_phase_1_follows_the_chosen_candidates_and_neutral_counts_as_correct(tmp_path):
    stages = stage(-1, 1, chosen=1, name="a"), stage(0, chosen=0, name="b")
    assert read(tmp_path, row(*stages)) == [(["a1", "b0"], [1, 1])]


def test_phase_1_a_persons_own_step_is_on_the_path(tmp_path):
    stages = stage(-1, -1, human="own", name="a"), stage(1, chosen=0, name="b")
    assert read(tmp_path, row(*stages)) == [(["own", "b0"], [1, 1])]


def test_phase_1_ends_where_nothing_was_chosen(tmp_path):
    nothing = {"completions": None, "human_completion": None, "chosen_completion": None}
    for last in (nothing, stage(None, None), stage(-1, -1)):  # a given-up labelling has such a last step
        assert read(tmp_path, row(stage(1, chosen=0, name="a"), last, finish="give_up")) == [(["a0"], [1])]


def test_phase_2_ends_with_the_first_error_of_the_generated_solution(tmp_path):
    stages = stage(1, chosen=0, name="a"), stage(-1, 1, -1, name="b")
    solution = ["a0", "b0", "never labelled"]
    assert read(tmp_path, row(*stages, planned=solution, finish="found_error")) == [(["a0", "b0"], [1, 0])]


def test_phase_2_finds_the_generated_step_wherever_it_stands_among_the_candidates(tmp_path):
    stages = stage(1, chosen=0, name="a"), stage(1, -1, name="b")
    assert read(tmp_path, row(*stages, planned=["a0", "b1"], finish="found_error")) == [(["a0", "b1"], [1, 0])]


@pytest.mark.parametrize("chosen", [0, None])
def test_a_step_without_a_rating_ends_the_path_before_it(tmp_path, chosen):
    stages = stage(1, chosen=0, name="a"), stage(None, chosen=chosen, name="b"), stage(1, chosen=0, name="c")
    assert read(tmp_path, row(*stages, planned=["a0", "b0", "c0"])) == [(["a0"], [1])]


def test_a_chosen_candidate_that_is_incorrect_is_the_last_step(tmp_path):
    stages = stage(1, chosen=0, name="a"), stage(-1, chosen=0, name="b"), stage(1, chosen=0, name="c")
    assert read(tmp_path, row(*stages)) == [(["a0", "b0"], [1, 0])]


def test_alternatives_are_the_rated_rejected_candidates_behind_the_same_beginning(tmp_path):
    stages = stage(1, chosen=0, name="a"), stage(-1, None, 1, 0, chosen=2, name="b")
    assert read(tmp_path, row(*stages), alternatives=True) == [
        (["a0", "b0"], [1, 0]),
        (["a0", "b3"], [1, 1]),
        (["a0", "b2"], [1, 1]),
    ]


def test_alternatives_of_phase_2_leave_out_the_step_that_is_on_the_path(tmp_path):
    found = read(tmp_path, row(stage(-1, 1, name="a"), planned=["a0"], finish="found_error"), alternatives=True)
    assert found == [(["a1"], [1]), (["a0"], [0])]


def test_rows_without_a_prefix_are_counted_by_reason(tmp_path):
    path = write(
        tmp_path,
        row(stage(1, chosen=0), finish="bad_problem"),
        row(stage(None, None), finish="give_up"),
        row(stage(1, chosen=0)),
    )
    counts = Prm800kCounts()
    assert list(read_prm800k(path, counts=counts)) == [Prefix("How many?", ["s0"], [1], f"{path}:3")]
    assert (counts.rows, counts.prefixes) == (3, 1)
    assert counts.dropped == {"bad problem": 1, "no labelled step": 1}


def _changed(change: Any) -> dict:
    changed = row(stage(1, chosen=0), planned=["s0"])
    change(changed)
    return changed


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (_changed(lambda r: r.pop("label")), "rows.jsonl:2: the field `label` is missing"),
        (_changed(lambda r: r["question"].update(problem=7)), "`question.problem` must be a text, it is a number"),
        (
            _changed(lambda r: r["label"]["steps"][0].update(chosen_completion=1)),
            "chosen_completion is 1, there are 1",
        ),
        (_changed(lambda r: r["label"]["steps"][0].update(chosen_completion=-1)), "chosen_completion is -1"),
        (_changed(lambda r: r["label"]["steps"][0].update(chosen_completion=True)), "chosen_completion is true"),
        (
            _changed(lambda r: r["label"]["steps"][0]["completions"][0].update(rating=2)),
            "completions[0].rating is 2",
        ),
        (_changed(lambda r: r["label"]["steps"][0]["completions"][0].update(rating=True)), "rating is true"),
        (
            _changed(lambda r: r["label"]["steps"][0]["completions"][0].pop("text")),
            "completions[0].text` is missing",
        ),
        (_changed(lambda r: r["label"].update(steps={})), "`label.steps` must be a list, it is an object"),
        (_changed(lambda r: r["label"].update(finish_reason="found_eror")), 'label.finish_reason is "found_eror"'),
        ([1], "rows.jsonl:2: a row must be a JSON object, this is a list"),
    ],
)
def test_a_row_that_is_not_as_described_is_named(tmp_path, bad, said):
    with pytest.raises(UserError) as error:
        list(read_prm800k(write(tmp_path, row(stage(1, chosen=0)), bad)))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no rows in it"),
        (b"{\n", ":1: not JSON"),
        (b'{"a": "\xff"}\n', ":1: not UTF-8"),
        (b"[" * 100_000, ":1: not JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, data, said):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(UserError, match=said):
        list(read_prm800k(path))
    with pytest.raises(UserError, match="No such file"):
        list(read_prm800k(tmp_path / "none.jsonl"))


def test_line_separators_that_are_no_newlines_stay_in_the_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    text = json.dumps(row(stage(1, chosen=0, name="a\u2028b")), ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\n\n")
    assert next(read_prm800k(path)).steps == ["a\u2028b0"]
