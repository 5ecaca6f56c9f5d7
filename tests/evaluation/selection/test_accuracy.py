"""Searched problems from files to accuracy by N, on completions that the test writes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.selection.accuracy import (
    accuracy_by_n,
    difference_by_n,
    hits_by_n,
    numbers_of,
    score_figures,
    tokens_by_n,
)
from thinkprm_jax.evaluation.selection.comparison import selection_report
from thinkprm_jax.evaluation.selection.runs import SearchedProblem, SelectionRun, read_run


def searched(answers: str, scores: list[float | None], gold: str = "a", problem: str = "p", **more):
    """A completion a letter; "-" is one without an answer."""
    keys = tuple(None if letter == "-" else letter for letter in answers)
    return SearchedProblem(problem, keys, tuple(scores), tuple(key == gold for key in keys), **more)


# First 1, 2, 4: naive b, a, a; weighted b, a, b (0.3 + 0.8 > 0.9); majority b, b, b.
PROBLEM = searched("babc", [0.3, 0.9, 0.8, 0.1])


def test_selection_by_hand():
    found = hits_by_n([PROBLEM], [1, 2, 4])
    values = {method: [float(found[n][method][0]) for n in (1, 2, 4)] for method in found[1]}
    assert values == {
        "naive": [0, 1, 1],
        "weighted": [0, 1, 0],
        "majority": [0, 0, 0],
        "pass": [0, 1, 1],
        "pass_at_k": [1 / 4, 1 / 2, 1],  # one of four is right
    }


def test_a_problem_with_fewer_completions_has_what_it_has():
    problems = [PROBLEM, searched("a", [0.2]), searched("", [])]
    found = hits_by_n(problems, [1, 4])
    assert found[4]["naive"].tolist() == [True, True, False]
    assert found[1]["pass"].tolist() == [False, True, False]


def test_accuracy_has_the_interval_of_its_problems():
    problems = [searched("a", [0.5], problem=str(i)) if i < 30 else searched("b", [0.5]) for i in range(40)]
    found = accuracy_by_n(problems, resamples=2000)[1]["naive"]
    half = 1.96 * math.sqrt(0.75 * 0.25 / 40)
    assert (found.value, found.n) == (0.75, 40)
    assert (found.low, found.high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.03)


def test_where_all_are_right_the_interval_is_wilsons():
    found = accuracy_by_n([searched("a", [0.5])] * 20, resamples=10)[1]["majority"]
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.839, abs=1e-3)


def test_without_scores_only_what_needs_none_is_defined():
    found = accuracy_by_n([searched("ab", [None, None])], resamples=2)[2]
    assert math.isnan(found["naive"].value)
    assert math.isnan(found["weighted"].value)
    assert (found["majority"].value, found["pass"].value) == (1.0, 1.0)


def test_a_difference_is_over_the_problems_that_both_have():
    ours = SelectionRun("ours", "", (searched("a", [1.0], problem="1"), searched("a", [1.0], problem="2")))
    theirs = SelectionRun("theirs", "", (searched("b", [1.0], problem="2"), searched("a", [1.0], problem="3")))
    found = difference_by_n(ours, theirs, resamples=20)[1]["naive"]
    assert (found.value, found.n) == (1.0, 1)
    assert difference_by_n(ours, SelectionRun("other", "", (searched("a", [1.0], problem="9"),))) == {}


def test_a_gain_over_what_has_no_scores_is_undefined_where_a_method_needs_them():
    scored, plain = (SelectionRun("", "", (searched("ba", scores),)) for scores in ([0.1, 0.9], [None, None]))
    found = difference_by_n(scored, plain, resamples=5)[2]
    assert all(math.isnan(found[method].value) for method in ("naive", "weighted"))
    assert (found["majority"].value, found["pass"].value) == (0.0, 0.0)


def test_a_difference_is_paired():
    random = np.random.default_rng(0)
    answers = ["a" if right else "b" for right in random.random(200) < 0.5]
    ours = SelectionRun("", "", tuple(searched(a, [1.0], problem=str(i)) for i, a in enumerate(answers)))
    found = difference_by_n(ours, ours, resamples=50)[1]["naive"]
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_scores_are_compared_with_answers_by_problem():
    problems = [
        searched("ab", [0.4, 0.1], problem="hard"),  # right above wrong, within the problem
        searched("ab", [0.9, 0.5], problem="easy"),
        searched("bb", [0.2, 0.2], problem="no right one"),
    ]
    found = score_figures(problems, resamples=10)
    assert (found["auroc_within"].value, found["auroc_within"].n) == (1.0, 2)
    # 0.4 lies below the 0.5 of another problem: 7 of the 8 pairs are in order.
    assert found["auroc"].value == pytest.approx(7 / 8)
    assert found["auroc"].n == 3
    assert found["brier"].value == pytest.approx((0.36 + 0.01 + 0.01 + 0.25 + 0.04 + 0.04) / 6)


def test_scores_that_are_no_probabilities_have_no_calibration():
    found = score_figures([searched("ab", [3.0, -1.0])], resamples=2)
    assert found["auroc"].value == 1.0
    assert math.isnan(found["calibration_error"].value)


def test_tokens_of_the_first_n_and_of_a_whole_search():
    problem = searched("ab", [0.1, 0.2], generator_tokens=(10, 30), verifier_tokens=(1, 2), spent=(500, 70))
    assert tokens_by_n(SelectionRun("", "", (problem,))) == {1: (10.0, 1.0), 2: (40.0, 3.0)}
    whole = SelectionRun("", "", (problem,), whole=True, searched_n=4)  # two of four beams finished
    assert numbers_of(whole) == [4]
    assert tokens_by_n(whole) == {4: (500.0, 70.0)}
    assert tokens_by_n(SelectionRun("", "", (searched("a", [0.1]),))) == {}


ROW = {
    "problem": "1 + 1?",
    "answer": "2",
    "completions": [r"It is \boxed{3}.", r"It is \boxed{2}.", "No idea"],
    "scores": [[0.9, 0.2], [0.5, 0.6], [0.1]],
    "agg_scores": [0.2, 0.6, 0.1],
}


CHAIN = {"output": "", "prefix_score": 0.5, "step_labels": []}


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_of_search_and_learn(tmp_path):
    run = read_run(write(tmp_path / "recorded.jsonl", ROW))
    (problem,) = run.problems
    assert (run.name, run.scores, run.n) == ("recorded", "agg_scores", 3)
    assert (problem.answers, problem.correct) == (("3", "2", None), (False, True, False))
    assert problem.scores == (0.2, 0.6, 0.1)


def test_step_scores_are_aggregated_as_asked(tmp_path):
    path = write(tmp_path / "r.jsonl", ROW)
    assert read_run(path, agg="min").problems[0].scores == (0.2, 0.5, 0.1)
    assert read_run(path, agg="mean").problems[0].scores == pytest.approx((0.55, 0.55, 0.1))


def test_verdicts_of_score_are_the_scores(tmp_path):
    chains = [CHAIN | {"output_tokens": 5}, CHAIN | {"output_tokens": 6}]
    verdict = {"prefix_score": 0.7, "step_scores": [0.9, 0.8], "step_labels": [1, 1], "chains": chains}
    run = read_run(write(tmp_path / "r.jsonl", {**ROW, "verdicts": [verdict, {"error": "no room"}, verdict]}))
    assert run.scores == "verdicts (last)"
    assert run.problems[0].scores == (0.7, None, 0.7)
    assert run.problems[0].verifier_tokens == (11, 0, 11)


def folder(path: Path, recipe: str, **more) -> Path:
    path.mkdir()
    (path / "recipe.yaml").write_text(recipe)
    row = {**ROW, "answers": ["3", "2", None], "correct": [False, True, False], "completion_tokens": [9, 8, 7]}
    write(path / "completions.jsonl", {**row, "tokens": {"generated": 90, "verifier": 40}, **more})
    verdict = {
        "prefix_score": 0.5,
        "step_scores": [0.5],
        "step_labels": [1],
        "chains": [CHAIN | {"output_tokens": 5}],
    }
    write(path / "verdicts.jsonl", {"index": 0, "verdicts": [verdict] * 3})
    return path


def test_the_folder_of_a_search(tmp_path):
    run = read_run(folder(tmp_path / "bon", "approach: best_of_n\nn: 3\n"))
    assert (run.name, run.whole, numbers_of(run)) == ("bon", False, [1, 2])
    assert tokens_by_n(run) == {1: (9.0, 5.0), 2: (17.0, 10.0)}
    beams = read_run(folder(tmp_path / "beam", "approach: beam_search\nn: 4\n"), "beams")
    assert (beams.name, beams.whole, numbers_of(beams)) == ("beams", True, [4])
    assert tokens_by_n(beams) == {4: (90.0, 40.0)}


def test_a_search_without_a_verifier(tmp_path):
    path = folder(tmp_path / "sample", "approach: sample\nn: 3\n")
    write(path / "verdicts.jsonl", {"index": 0, "verdicts": []})
    assert read_run(path).problems[0].verifier_tokens is None


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"agg_scores": [0.1]}, "r.jsonl:1: the field `agg_scores` has 1 entries for 3 completions"),
        (
            {"agg_scores": [0.1, "x", 0.2]},
            "r.jsonl:1: the field `agg_scores[1]` must be a finite number",
        ),
        ({"agg_scores": [0.1, math.nan, 0.2]}, "`agg_scores[1]` must be a finite number, it is nan"),
        ({"completions": "text"}, "r.jsonl:1: the field `completions` must be a list"),
        ({"answer": [2]}, "r.jsonl:1: the field `answer` must be a text or a number, it is a list"),
        ({"verdicts": [{}, {}, {}]}, "r.jsonl:1: the field `verdicts[0].prefix_score` is missing"),
        ({"completion_tokens": [1, 2]}, "the field `completion_tokens` has 2 entries for 3 completions"),
    ],
)
def test_a_bad_row_is_named(tmp_path, bad, message):
    with pytest.raises(UserError) as error:
        read_run(write(tmp_path / "r.jsonl", {**ROW, **bad}))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_completions_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no completions\.jsonl"):
        read_run(tmp_path)


def test_a_report_of_two_runs_compares_the_second_with_the_first(tmp_path):
    worse = {**ROW, "agg_scores": [0.9, 0.6, 0.1]}
    runs = [read_run(write(tmp_path / f"{name}.jsonl", row)) for name, row in (("a", ROW), ("b", worse))]
    report = selection_report(runs, "naive", resamples=10)
    first, second = report.content["runs"]
    assert first["by_n"]["2"]["naive"]["value"] == 1.0
    assert first["difference_from_first"] is None
    assert second["difference_from_first"]["2"]["naive"]["value"] == -1.0
    assert json.loads(json.dumps(report.content, allow_nan=False)) == report.content
    assert len(report.panels) == 2  # by N, and reliability; tokens were not counted
