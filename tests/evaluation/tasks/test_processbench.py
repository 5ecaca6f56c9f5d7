"""Reading ProcessBench, choosing from it, and its two kinds of F1."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.tasks.processbench import SUBSETS, choose, read_processbench
from thinkprm_jax.evaluation.tasks.processbench_report import (
    ProcessBenchFigures,
    first_error_table,
    processbench_json,
    whole_solution_table,
)
from thinkprm_jax.records.evaluation import Outcome


def row(id: str, label: int = -1, steps: int = 3, **more) -> dict:
    texts = [f"step {number}" for number in range(1, steps + 1)]
    return {"id": id, "generator": "g", "problem": f"problem {id}", "steps": texts, "label": label,
            "final_answer_correct": label < 0, **more}  # fmt: skip


def write_lines(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_one_file_of_all_subsets(tmp_path):
    ids = [f"{subset}-{number}" for number in range(2) for subset in SUBSETS]
    path = write_lines(tmp_path / "all.jsonl", [row(id, label=1) for id in ids])
    found = read_processbench(path, ["omnimath", "math"])
    assert [r.id for r in found] == ["omnimath-0", "omnimath-1", "math-0", "math-1"]
    case = found[0].case()
    assert (case.problem, case.steps, case.first_error) == (
        "problem omnimath-0",
        ("step 1", "step 2", "step 3"),
        1,
    )
    assert case.groups == {"subset": "omnimath", "steps": "01-05", "final answer": "wrong"}


def test_a_folder_with_a_file_a_subset(tmp_path):
    for subset in ("gsm8k", "math"):
        (tmp_path / f"{subset}.json").write_text(json.dumps([row(f"{subset}-{i}") for i in range(2)]))
    found = read_processbench(str(tmp_path), ["math", "gsm8k"])
    assert [r.id for r in found] == ["math-0", "math-1", "gsm8k-0", "gsm8k-1"]


def test_an_id_that_says_nothing_is_of_its_files_subset(tmp_path):
    found = read_processbench(write_lines(tmp_path / "math.jsonl", [row("a1")]), ["math"])
    assert found[0].subset == "math"


def test_a_data_set_saved_by_datasets(tmp_path):
    parts = {s: datasets.Dataset.from_list([row(f"{s}-0", label=0)]) for s in ("gsm8k", "omnimath")}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    found = read_processbench(str(tmp_path / "saved"), ["omnimath"])
    assert [(r.id, r.label) for r in found] == [("omnimath-0", 0)]


def test_the_hub_is_asked_for_each_subset(monkeypatch):
    asked = []

    def load_dataset(name, *, split, revision):
        asked.append((name, split, revision))
        return [row(f"{split}-0")]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = read_processbench(subsets=["gsm8k", "math"])
    assert [r.subset for r in found] == ["gsm8k", "math"]
    assert asked == [("Qwen/ProcessBench", split, None) for split in ("gsm8k", "math")]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"label": 3}, "rows.jsonl:2: the field `label` must be a step from 0 to 2, or -1; it is 3"),
        ({"label": True}, "the field `label` must be the index of a step, or -1, it is true or false"),
        ({"label": None}, "the field `label` must be the index of a step, or -1, it is null"),
        ({"steps": []}, "rows.jsonl:2: the field `steps` is empty"),
        ({"steps": ["a", 1]}, "the field `steps[1]` must be a text, it is a number"),
        ({"problem": 1}, "the field `problem` must be a text"),
        ({"id": "aime-1"}, "the field `id` is 'aime-1'; it must begin with its subset"),
        ({"id": "math-0"}, "rows.jsonl:2: the id math-0 is that of"),
        ({"final_answer_correct": "yes"}, "the field `final_answer_correct` must be true or false"),
    ],
)
def test_a_bad_row_is_named(tmp_path, bad, message):
    path = write_lines(tmp_path / "rows.jsonl", [row("math-0"), {**row("math-1"), **bad}])
    with pytest.raises(UserError) as error:
        read_processbench(path, ["math"])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_subset_is_named(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [row("math-0")])
    with pytest.raises(UserError, match=r"rows\.jsonl: has no rows of the subset gsm8k"):
        read_processbench(path, ["math", "gsm8k"])


@pytest.fixture
def rows(tmp_path):
    every = [row(f"{s}-{i}", label=-1 if i % 4 else 0) for s in ("gsm8k", "math") for i in range(40)]
    return read_processbench(write_lines(tmp_path / "rows.jsonl", every), ["gsm8k", "math"])


def test_a_limit_is_of_each_subset_and_grows_by_adding(rows):
    few, more = choose(rows, 5), choose(rows, 12)
    assert [sum(r.subset == s for r in few) for s in ("gsm8k", "math")] == [5, 5]
    assert {r.id for r in few} < {r.id for r in more}
    assert [r.id for r in few] == [r.id for r in rows if r in few]  # in the order of the source
    assert choose(list(reversed(rows)), 5) == list(reversed(few))  # whatever that is
    assert {r.id.split("-")[1] for r in few if r.subset == "math"} != {str(i) for i in range(5)}
    assert choose(rows, None) == rows


@pytest.mark.parametrize(("limit", "each"), [(None, 10), (8, 4), (100, 10)])
def test_balanced_takes_as_many_of_each_kind(rows, limit, each):
    chosen = choose(rows, limit, balanced=True)
    for subset in ("gsm8k", "math"):
        labels = [r.label for r in chosen if r.subset == subset]
        assert (labels.count(-1), labels.count(0)) == (each, each)


def judged(subset: str, truth: int, predicted: int | None, score: float | None) -> Outcome:
    readable = int(predicted is not None)
    error = "too long" if score is None else None
    return Outcome(truth, predicted, score, readable, 1, 1, 2, 100, {"subset": subset}, error, predicted)


@pytest.fixture(scope="module")
def figures() -> ProcessBenchFigures:
    return ProcessBenchFigures(
        [
            judged("gsm8k", 0, 0, 0.1),
            judged("gsm8k", -1, -1, 0.9),
            judged("olympiadbench", 2, 1, 0.2),  # an error is seen, at the wrong step
            judged("olympiadbench", 0, 0, 0.3),
            judged("olympiadbench", -1, -1, 0.8),
            judged("omnimath", -1, -1, 0.7),
            judged("omnimath", 1, None, 0.4),  # no step is judged, but the whole is
            judged("omnimath", 1, None, None),
        ],
        {"n": 1},
        resamples=50,
    )


def test_the_two_f1_of_the_same_verdicts_by_hand(figures):
    content = processbench_json(figures)
    standard = {name: found["f1"]["value"] for name, found in content["first_error"]["subsets"].items()}
    assert standard == pytest.approx({"gsm8k": 1.0, "olympiadbench": 2 / 3, "omnimath": 0.0})
    assert content["figures"]["first_error_f1_average"]["value"] == pytest.approx(5 / 9)
    paper = {name: found["f1"]["value"] for name, found in content["binary_paper"]["subsets"].items()}
    # omnimath: one right "correct", and the solution without a verdict counts as passed.
    assert paper == pytest.approx({"olympiadbench": 1.0, "omnimath": 2 / 3})
    assert content["figures"]["binary_f1_paper_average"]["value"] == pytest.approx(5 / 6)


def test_unreadable_chains_and_missing_verdicts_are_counted(figures):
    content = processbench_json(figures)
    assert content["first_error"]["subsets"]["omnimath"]["unreadable_chains"]["value"] == pytest.approx(2 / 3)
    assert set(content["first_error"]["subsets"]["omnimath"]["contradictory_chains"]) == {
        "value",
        "low",
        "high",
        "n",
    }
    assert content["binary_paper"]["subsets"]["omnimath"]["no_verdict"]["value"] == pytest.approx(1 / 3)
    assert (content["solutions"], content["failed"]) == (8, 1)


def test_no_table_has_both_f1(figures):
    standard, paper = first_error_table(figures), whole_solution_table(figures)
    assert "F1" in [column.heading for column in standard.columns]
    assert "binary F1" in [column.heading for column in paper.columns]
    assert not any("binary" in str(column.heading) for column in standard.columns)
    assert not any(str(column.heading).startswith("F1") for column in paper.columns)
    assert "binary_f1" not in processbench_json(figures)["figures"]  # nor is a pooled one in JSON
    assert "first_error_f1" not in processbench_json(figures)["figures"]


def test_how_the_index_is_predicted_is_said():
    one = ProcessBenchFigures([judged("math", 0, 0, 0.1), judged("math", -1, -1, 0.9)], {"n": 1}, resamples=2)
    assert "what the chain says" in processbench_json(one)["first_error"]["what"]
    many = ProcessBenchFigures([Outcome(0, 0, 0.1, 2, 4, 1, 2, groups={"subset": "math"})], {"n": 4}, resamples=2)
    assert "the vote of the readable ones of 4 chains" in processbench_json(many)["first_error"]["what"]
    scored = ProcessBenchFigures([judged("math", 0, 0, 0.1)], {"kind": "qwen_prm"}, resamples=2)
    assert "the first step scored one half or less" in processbench_json(scored)["first_error"]["what"]
    assert whole_solution_table(many) is None  # the paper has no figure for math
