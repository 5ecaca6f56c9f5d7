"""Runs from files: what the page will say of them, and what is said of files that are not right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import fake_run
from thinkprm_jax.errors import UserError
from thinkprm_jax.report.plain import chain_says
from thinkprm_jax.report.run import VerdictMark
from thinkprm_jax.report.sources import load_run

OUTPUT = """\
Let's verify step by step:

Step 1: fine. The step is \\boxed{correct}

Step 2: no. The step is \\boxed{correct}. Wait. The step is \\boxed{incorrect}
</think>
Is the solution correct? No"""
CHAIN = {
    "output": OUTPUT,
    "prefix_score": 0.1,
    "step_labels": [1, 0, 0],
    "step_scores": [0.9, 0.2, 0.0],
    "step_forced": [False, False, False],
    "finish_reason": "stop",
    "output_tokens": 30,
}
VERDICT = {"prefix_score": 0.1, "step_scores": [0.9, 0.2, 0.0], "step_labels": [1, 0, 0], "chains": [CHAIN]}
OUTCOME = {
    "first_error": -1,
    "predicted": None,
    "score": None,
    "readable": 0,
    "chains": 1,
    "steps_right": 0,
    "steps_counted": 0,
}
ROW = {"problem": "p", "steps": ["a", "b", "c"], "verdict": VERDICT, "verifier": {"model": "mini", "n": 1}}


def load_score(tmp_path: Path, *rows: dict) -> tuple:
    return load_run(fake_run.write_lines(tmp_path / "run.jsonl", list(rows))).problems


def only_solution(tmp_path: Path, **verdict):
    (problem,) = load_score(tmp_path, ROW | {"verdict": VERDICT | verdict})
    return problem.solutions[0]


def test_each_verdict_of_a_chain_leads_to_its_step(tmp_path):
    chain = only_solution(tmp_path).chains[0]
    marks = [part for part in chain.parts if isinstance(part, VerdictMark)]
    assert [(mark.label, mark.step) for mark in marks] == [(1, 0), (1, None), (0, 1)]  # the second was taken back
    texts = "".join(part.text if isinstance(part, VerdictMark) else part for part in chain.parts)
    assert texts + chain.ending == OUTPUT


def test_nothing_is_measured_behind_the_first_error(tmp_path):
    solution = only_solution(tmp_path)
    assert solution.scores == (0.9, 0.2, None)
    assert solution.predicted == 1


def test_a_step_that_one_chain_reached_has_its_mean(tmp_path):
    through = CHAIN | {"step_labels": [1, 1, 1], "step_scores": [0.9, 0.8, 0.7], "prefix_score": 0.8}
    solution = only_solution(tmp_path, chains=[CHAIN, through], step_scores=[0.9, 0.5, 0.35])
    assert solution.scores == (0.9, 0.5, 0.35)
    assert (solution.disputed, solution.agreeing) == (True, 1)


def test_a_forced_verdict_is_no_reading(tmp_path):
    silent = CHAIN | {"output": "nothing</think>", "step_forced": [True, True, False]}
    solution = only_solution(tmp_path, chains=[silent])
    assert solution.chains[0].forced == (True, True, False)
    assert not solution.chains[0].readable
    assert solution.predicted is None


def test_a_chain_whose_score_and_labels_disagree_is_flagged(tmp_path):
    agreeing, disagreeing = CHAIN | {"prefix_score": 0.1}, CHAIN | {"prefix_score": 0.9}
    chains = only_solution(tmp_path, chains=[agreeing, disagreeing]).chains
    assert [chain.contradictory for chain in chains] == [False, True]
    assert chain_says(chains[1]).endswith(", score and labels disagree")


def test_the_label_of_a_row_is_the_truth(tmp_path):
    problems = load_score(tmp_path, ROW | {"label": 1}, ROW | {"label": -1}, ROW)
    found = [(p.solutions[0].truth, p.solutions[0].correct, p.solutions[0].wrong) for p in problems]
    assert found == [(1, False, False), (-1, True, True), (None, None, False)]


def test_completions_have_a_verdict_each(tmp_path):
    row = {
        "problem": "p",
        "completions": ["a\n\nb\n\nc", "d\n\ne\n\nf"],
        "verdicts": [VERDICT, {"error": "too long"}],
    }
    (problem,) = load_score(tmp_path, row)
    assert [solution.steps for solution in problem.solutions] == [("a", "b", "c"), ("d", "e", "f")]
    assert [solution.error for solution in problem.solutions] == [None, "too long"]


def test_a_judge_of_whole_solutions_has_no_steps(tmp_path):
    judge = {"output": "Yes.", "score": None, "label": None, "step_labels": [], "forced": False}
    sure = judge | {"score": 0.8, "label": 1}
    solution = only_solution(tmp_path, prefix_score=0.8, step_scores=[0.8], step_labels=[], chains=[judge, sure])
    assert (solution.scores, solution.labels, solution.predicted) == ((), (), -1)
    assert [chain.readable for chain in solution.chains] == [False, True]


def test_a_discriminative_verdict_scores_every_step(tmp_path):
    verdict = {"prefix_score": 0.7, "step_scores": [0.9, 0.2, 0.7], "step_labels": [1, 0, 1]}
    (problem,) = load_score(tmp_path, ROW | {"verdict": verdict})
    assert problem.solutions[0].scores == (0.9, 0.2, 0.7)
    assert problem.solutions[0].predicted == 1


def test_details_say_what_the_evaluation_counted(tmp_path):
    rows = fake_run.details_rows(8)
    rows[0]["outcome"]["predicted"] = None
    run = load_run(fake_run.write_lines(tmp_path / "details.jsonl", rows))
    assert run.kind == "evaluation"
    assert [problem.solutions[0].predicted for problem in run.problems] == [
        r["outcome"]["predicted"] for r in rows
    ]
    assert [problem.solutions[0].truth for problem in run.problems] == [row["label"] for row in rows]
    assert run.settings == {"model": "mini"}


def test_a_search_knows_which_completions_were_taken(tmp_path):
    folder = fake_run.write_search(tmp_path / "run", problems=6)
    rows = [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]
    for problem, row in zip(load_run(folder).problems, rows, strict=True):
        assert len(problem.picks) == 9
        for pick in problem.picks:
            assert pick.answer == f"\\boxed{{{row['answers'][pick.solutions[0]] or ''}}}"
            assert len({row["answers"][place] for place in pick.solutions}) == 1
        best = max(range(4), key=lambda place: row["agg_scores"][place] or -1)
        assert next(pick for pick in problem.picks if pick.name == "naive@4").solutions == (best,)


def test_a_search_that_still_runs_is_read_as_far_as_it_is(tmp_path):
    folder = fake_run.write_search(tmp_path / "run", problems=4)
    (folder / "accuracy.json").unlink()
    data = (folder / "completions.jsonl").read_bytes()
    (folder / "completions.jsonl").write_bytes(data[:-50])
    run = load_run(folder)
    assert len(run.problems) == 3
    assert any("completions.jsonl is half-written" in note for note in run.notes)
    assert any("no accuracy.json" in note for note in run.notes)


def test_a_search_without_verdicts_shows_the_scores_it_has(tmp_path):
    folder = fake_run.write_search(tmp_path / "run", problems=2)
    (folder / "verdicts.jsonl").unlink()
    problem = load_run(folder).problems[0]
    assert all(solution.verdict_score is None and solution.score is not None for solution in problem.solutions)
    assert all(len(solution.scores) == len(solution.steps) for solution in problem.solutions)


def test_a_problem_without_a_solution_is_no_failure(tmp_path):
    folder = fake_run.write_search(tmp_path / "run", problems=1)
    lists = ("completions", "completion_tokens", "finish_reasons", "scores", "agg_scores", "answers", "correct")
    row = {
        "index": 0,
        "problem": "p",
        "answer": "1",
        "error": "no tree has finished",
        **{name: [] for name in lists},
    }
    fake_run.write_lines(folder / "completions.jsonl", [row])
    fake_run.write_lines(folder / "verdicts.jsonl", [{"index": 0, "verdicts": []}])
    (problem,) = load_run(folder).problems
    assert (problem.solutions, problem.error) == ((), "no tree has finished")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prefix_score": float("nan")}, "`verdict.prefix_score` must be a number in [0, 1], it is nan"),
        ({"prefix_score": True}, "`verdict.prefix_score` must be a number in [0, 1], it is true or false"),
        ({"step_scores": [0.1]}, "`verdict.step_scores` has 1 entries for 3 steps"),
        ({"step_scores": [0.1, 2, 0]}, "`verdict.step_scores[1]` must be a number in [0, 1], it is 2"),
        ({"step_labels": [1, 2, 0]}, "`verdict.step_labels[1]` must be 0 or 1"),
        ({"chains": [3]}, "`verdict.chains[0]` must be an object, it is a number"),
        ({"chains": [CHAIN | {"output": 3}]}, "`verdict.chains[0].output` must be a text, it is a number"),
        (
            {"chains": [CHAIN | {"step_forced": [1, 0, 0]}]},
            "`verdict.chains[0].step_forced[0]` must be true or false",
        ),
        ({"chains": [CHAIN | {"output_tokens": 1.5}]}, "`verdict.chains[0].output_tokens` must be a whole number"),
        ({"error": 3}, "`verdict.error` must be a text"),
    ],
)
def test_a_bad_verdict_is_named(tmp_path, change, message):
    with pytest.raises(UserError) as error:
        load_score(tmp_path, ROW, ROW | {"verdict": VERDICT | change})
    assert f"run.jsonl:2: the field {message}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 9}, "`label` must be a step from 0 to"),
        ({"outcome": {}}, "`outcome.first_error` is missing"),
        ({"outcome": OUTCOME | {"score": "high"}}, "`outcome.score` must be a number in [0, 1]"),
        ({"outcome": OUTCOME | {"chains": "two"}}, "`outcome.chains` must be a whole number"),
        ({"outcome": OUTCOME | {"predicted": 9}}, "`outcome.predicted` must be a step from 0 to"),
        ({"groups": {"family": 3}}, "`groups.family` must be a text"),
        ({"steps": "one"}, "`steps` must be a list of texts"),
    ],
)
def test_bad_details_are_named(tmp_path, change, message):
    rows = fake_run.details_rows(2)
    with pytest.raises(UserError) as error:
        load_run(fake_run.write_lines(tmp_path / "details.jsonl", [rows[0], rows[1] | change]))
    assert f"details.jsonl:2: the field {message}" in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agg_scores": [0.1]}, "completions.jsonl:2: the field `agg_scores` has 1 entries for 4 completions"),
        ({"correct": [1, 1, 1, 1]}, "completions.jsonl:2: the field `correct[0]` must be true or false"),
        (
            {"agg_scores": [0, 0, 0, 7]},
            "completions.jsonl:2: the field `agg_scores[3]` must be a number in [0, 1]",
        ),
        ({"completion_tokens": [1, 2, 3, "x"]}, "`completion_tokens[3]` must be a whole number, it is a text"),
        ({"index": 7}, "verdicts.jsonl:2: the field `index` is not that of"),
        ({"pred_best@4": "x"}, "completions.jsonl:2: the field `pred_best@4` is of no selection"),
        ({"problem": None}, "completions.jsonl:2: the field `problem` must be a text, it is null"),
    ],
)
def test_a_bad_search_is_named(tmp_path, change, message):
    folder = fake_run.write_search(tmp_path / "run", problems=2)
    rows = [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]
    fake_run.write_lines(folder / "completions.jsonl", [rows[0], rows[1] | change])
    with pytest.raises(UserError) as error:
        load_run(folder)
    assert message in str(error.value)


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no completions.jsonl"):
        load_run(tmp_path / "empty")
    with pytest.raises(UserError, match=r"other.jsonl:1: no row of results"):
        load_run(fake_run.write_lines(tmp_path / "other.jsonl", [{"problem": "p"}]))
    (tmp_path / "bad.jsonl").write_text('{"a": 1}\n{"b":\n{"c": 1}\n')
    with pytest.raises(UserError, match=r"bad.jsonl:2: not JSON"):
        load_run(tmp_path / "bad.jsonl")
    folder = fake_run.write_search(tmp_path / "run", problems=1)
    (folder / "recipe.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"recipe.yaml, line 1: expected the node content"):
        load_run(folder)
