"""The data of a search: rows in, tasks out, and solutions made elsewhere."""

from __future__ import annotations

import json
from datetime import date, time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from thinkprm_jax.arithmetic.task import make_solution
from thinkprm_jax.errors import UserError
from thinkprm_jax.search.problems import lettered, load_tasks
from thinkprm_jax.search.recipe import SearchRecipe
from thinkprm_jax.search.results import completion_row


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write(tmp_path / "data.jsonl", [{"problem": f"p{i}", "answer": str(i), "level": i} for i in range(6)])


def test_rows_keep_their_fields_and_their_place_in_the_data(data: str) -> None:
    tasks = load_tasks(SearchRecipe(dataset_name=data, dataset_start=2, dataset_end=4))
    assert [dict(task.row) for task in tasks] == [
        {"index": 2, "problem": "p2", "answer": "2", "level": 2},
        {"index": 3, "problem": "p3", "answer": "3", "level": 3},
    ]
    assert [task.problem.number for task in tasks] == [2, 3]


def test_shards_are_all_rows_once(data: str) -> None:
    tasks = [load_tasks(SearchRecipe(dataset_name=data, dataset_start=1, dataset_shard=f"{i}/2")) for i in (0, 1)]
    assert [[task.problem.number for task in shard] for shard in tasks] == [[1, 2, 3], [4, 5]]
    with pytest.raises(UserError, match="shards of n are 0 to n - 1"):
        SearchRecipe(dataset_name=data, dataset_shard="2/2")


def test_num_samples_takes_the_first_of_what_is_left(data: str) -> None:
    tasks = load_tasks(SearchRecipe(dataset_name=data, dataset_start=2, num_samples=3))
    assert [task.problem.text for task in tasks] == ["p2", "p3", "p4"]


def test_question_is_another_name(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", [{"question": "q", "answer": 7}])
    (task,) = load_tasks(SearchRecipe(dataset_name=path))
    assert (task.problem.text, task.answer) == ("q", "7")


def test_fields_that_a_search_writes_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", [{"problem": "p", "answer": "1", "scores": [1], "pred_maj@4": "", "id": 5}])
    (task,) = load_tasks(SearchRecipe(dataset_name=path))
    assert set(task.row) == {"index", "problem", "answer", "id"}


def test_a_number_that_a_table_does_not_have_is_null(tmp_path: Path) -> None:
    columns = {"problem": ["p"], "answer": ["1"], "level": [float("nan")], "scale": [{"a": [1.5, float("inf")]}]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "data.parquet")
    (task,) = load_tasks(SearchRecipe(dataset_name=str(tmp_path / "data.parquet")))
    assert (task.row["level"], task.row["scale"]) == (None, {"a": [1.5, None]})


def test_verdicts_of_thinkprm_score_are_not_taken_for_those_of_the_search(tmp_path: Path) -> None:
    path = cached(tmp_path, verdicts=[{"prefix_score": 0.9, "step_scores": [0.9]}] * 3, verifier={"n": 1})
    (task,) = load_tasks(SearchRecipe(cached_solutions_path=path, n=2))
    assert set(task.row) == {"index", "problem", "answer"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "1"}, "d.jsonl:1: the field `problem` is missing"),
        ({"problem": "p"}, "d.jsonl:1: the field `answer` is missing"),
        ({"problem": "p", "answer": ["1"]}, "d.jsonl:1: the field `answer` must be a text or a number"),
    ],
)
def test_a_row_that_is_not_as_described_is_named(tmp_path: Path, row: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_tasks(SearchRecipe(dataset_name=write(tmp_path / "d.jsonl", [row])))


def test_no_rows_is_refused(data: str) -> None:
    with pytest.raises(UserError, match="no rows from 6 on"):
        load_tasks(SearchRecipe(dataset_name=data, dataset_start=6))


def test_arithmetic_problems_are_those_of_the_task() -> None:
    tasks = load_tasks(SearchRecipe(dataset_name="arithmetic", dataset_start=3, num_samples=2, dataset_seed=5))
    worked = [make_solution(5, index, "test") for index in (3, 4)]
    assert [(task.problem.text, task.answer) for task in tasks] == [(w.problem, w.answer) for w in worked]


def test_arithmetic_needs_an_end_and_a_known_split() -> None:
    with pytest.raises(UserError, match="has no end"):
        load_tasks(SearchRecipe(dataset_name="arithmetic"))
    with pytest.raises(UserError, match="no dataset_where"):  # none of its rows may hold: it would not end
        load_tasks(SearchRecipe(dataset_name="arithmetic", num_samples=1, dataset_where=("answer=x",)))
    with pytest.raises(UserError, match="splits train, test, unseen, not dev"):
        load_tasks(SearchRecipe(dataset_name="arithmetic", num_samples=1, dataset_split="dev"))


def cached(folder: Path, **changes) -> str:
    row = {"problem": "p1", "answer": "1", "completions": ["a", "b", "c"], "completion_tokens": [4, 5, 6]}
    return write(folder / "cached.jsonl", [row | changes])


def test_solutions_made_elsewhere_are_the_first_n(tmp_path: Path) -> None:
    (task,) = load_tasks(SearchRecipe(cached_solutions_path=cached(tmp_path), n=2))
    assert [beam.text for beam in task.solutions.solutions] == ["a", "b"]
    assert [beam.tokens for beam in task.solutions.solutions] == [4, 5]
    assert task.answer == "1"


def test_what_a_row_does_not_say_of_its_solutions_is_not_made_up(tmp_path: Path) -> None:
    recipe = SearchRecipe(cached_solutions_path=cached(tmp_path, completion_tokens=None), n=2, answer_kind="exact")
    (task,) = load_tasks(recipe)
    row = completion_row(task, task.solutions, recipe)
    assert "completion_tokens" not in row.to_dict()
    assert row.to_dict()["finish_reasons"] == [None, None]


def test_they_are_joined_to_a_data_set_by_the_problem(tmp_path: Path, data: str) -> None:
    part = {"dataset_start": 1, "dataset_end": 2}
    (task,) = load_tasks(SearchRecipe(cached_solutions_path=cached(tmp_path), dataset_name=data, n=2, **part))
    assert task.row["level"] == 1
    assert len(task.solutions.solutions) == 2


def test_a_problem_without_solutions_is_named(tmp_path: Path, data: str) -> None:
    recipe = SearchRecipe(cached_solutions_path=cached(tmp_path), dataset_name=data, n=2, num_samples=1)
    with pytest.raises(UserError, match=r"cached.jsonl: holds no solutions of the problem of .*data.jsonl:1"):
        load_tasks(recipe)


def test_too_few_solutions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cached.jsonl:1: has 3 completions, n is 4"):
        load_tasks(SearchRecipe(cached_solutions_path=cached(tmp_path), n=4))


def test_recorded_results_stand_in_for_answers(tmp_path: Path) -> None:
    recipe = SearchRecipe(
        cached_solutions_path=cached(tmp_path, correct=[True, False, True]), n=2, answer_kind="none"
    )
    (task,) = load_tasks(recipe)
    assert task.correct == (True, False)


def test_without_answers_results_must_be_recorded(tmp_path: Path) -> None:
    path = cached(tmp_path, correct=[True, None, True])
    recipe = SearchRecipe(cached_solutions_path=path, n=2, answer_kind="none")
    with pytest.raises(UserError, match="`correct` must hold true or false for each of the 2 completions"):
        load_tasks(recipe)


def test_rows_are_chosen_by_their_fields(tmp_path: Path) -> None:
    rows = [{"problem": f"p{i}", "answer": "1", "level": i % 2, "set": "a"} for i in range(6)]
    path = write(tmp_path / "d.jsonl", rows)
    tasks = load_tasks(SearchRecipe(dataset_name=path, dataset_where=("level=1", "set=a"), num_samples=2))
    assert [task.problem.number for task in tasks] == [1, 3]
    with pytest.raises(UserError, match="no rows for which levle=1 from 0 on"):
        load_tasks(SearchRecipe(dataset_name=path, dataset_where=("levle=1",)))


def test_gpqa_rows_become_lettered_options() -> None:
    row = {"Question": "Which?", "Correct Answer": "right", "Subdomain": "Optics",
           **{f"Incorrect Answer {i}": f"wrong {i}" for i in (1, 2, 3)}}  # fmt: skip
    made = [lettered(row, number, 0) for number in range(20)]
    for problem in made:
        lines = problem["problem"].splitlines()
        assert lines[:2] == ["Which?", ""]
        assert f"{problem['answer']}) right" in lines
    assert {problem["answer"] for problem in made} == set("ABCD")
    assert made[0] == {**lettered(row, 0, 0)}
    assert made[0]["Subdomain"] == "Optics"


def test_other_rows_stay_as_they_are() -> None:
    assert lettered({"problem": "p"}, 0, 0) == {"problem": "p"}


NUMBERS = ["0.00001", "1e16", "12345678901234567890", "9007199254740993", "0.5", "27.0", "-0.10"]


@pytest.mark.parametrize("door", ["data.jsonl", "folder", "data.json"])
def test_a_number_is_the_text_that_the_file_has_by_every_door(tmp_path: Path, door: str) -> None:
    rows = [f'{{"problem": "p{place}", "answer": {number}}}' for place, number in enumerate(NUMBERS)]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(rows))
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    (tmp_path / "data.json").write_text(f"[{', '.join(rows)}]")
    tasks = load_tasks(SearchRecipe(dataset_name=str(tmp_path / door), dataset_split="train"))
    assert [task.answer for task in tasks] == NUMBERS


def test_dates_and_times_of_a_folder_stay_texts(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"problem": "p", "answer": "2024-05-01", "at": "12:30:00"}')
    (task,) = load_tasks(SearchRecipe(dataset_name=str(tmp_path), dataset_split="train"))
    assert task.answer == "2024-05-01"
    assert task.row["at"] == "12:30:00"


def test_dates_of_parquet_are_answers(tmp_path: Path) -> None:
    import pyarrow.parquet

    table = pyarrow.table({"problem": ["p"], "answer": [date(2024, 5, 1)], "at": [time(12, 30)]})
    pyarrow.parquet.write_table(table, tmp_path / "data.parquet")
    (task,) = load_tasks(SearchRecipe(dataset_name=str(tmp_path / "data.parquet")))
    assert task.answer == "2024-05-01"
    assert task.row["at"] == "12:30:00"
