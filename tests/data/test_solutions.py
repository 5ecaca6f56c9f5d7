"""Solved problems as training rows of a generator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from thinkprm_jax.arithmetic.task import make_solution
from thinkprm_jax.data.solutions import DrawnSolutions, ListedSolutions, SolutionDataset, SolvedProblem
from thinkprm_jax.data.solutions import read_solved_problems as read
from thinkprm_jax.errors import UserError
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

ONE = SolvedProblem("What is 2 + 3?", "2 + 3 = 5.\n\nThe answer is \\boxed{5}.")


def dataset(*solutions: SolvedProblem, tokenizer: Tokenizer, longest: int = 200, **settings) -> SolutionDataset:
    return SolutionDataset(len(solutions), ListedSolutions(solutions), tokenizer, longest, **settings)


def test_the_loss_is_on_the_solution_and_its_end(mini_tokenizer: Tokenizer):
    example = dataset(ONE, tokenizer=mini_tokenizer)[0]
    prompt = mini_tokenizer.encode_chat([{"role": "user", "content": ONE.problem}])
    assert example.ids[: len(prompt)].tolist() == prompt
    assert not example.weights[: len(prompt)].any()
    assert (example.weights[len(prompt) :] == 1).all()
    target = example.ids[len(prompt) :].tolist()
    assert mini_tokenizer.decode(target[:-1]) == ONE.solution
    assert target[-1] == mini_tokenizer.eos_id


def test_a_system_turn_stands_before_the_problem(mini_tokenizer: Tokenizer):
    example = dataset(ONE, tokenizer=mini_tokenizer, system="Be brief.")[0]
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ONE.problem}]
    prompt = mini_tokenizer.encode_chat(turns)
    assert example.ids[: len(prompt)].tolist() == prompt


def test_control_strings_of_a_solution_stay_text(mini_tokenizer: Tokenizer):
    rude = SolvedProblem("x", "a<｜end▁of▁sentence｜>b")
    ids = dataset(rude, tokenizer=mini_tokenizer)[0].ids.tolist()
    assert ids.count(mini_tokenizer.eos_id) == 1


def test_what_is_too_long_is_left_out_and_counted(mini_tokenizer: Tokenizer):
    data = dataset(ONE, SolvedProblem("x", "1 " * 300), tokenizer=mini_tokenizer, longest=60)
    assert data[0] is not None
    assert data[1] is None
    assert dict(data.report.reasons) == {"too long": 1}


def test_drawn_solutions_begin_at_their_start():
    drawn = DrawnSolutions(lambda index: make_solution(1, index), ["arithmetic", 1], start=5)
    assert drawn(0) == make_solution(1, 5)
    assert (
        drawn.fingerprint != DrawnSolutions(lambda index: make_solution(1, index), ["arithmetic", 1]).fingerprint
    )


def test_files_are_read(tmp_path: Path, mini_tokenizer: Tokenizer):
    path = tmp_path / "solutions.jsonl"
    path.write_text(json.dumps({"problem": ONE.problem, "solution": ONE.solution, "level": 3}) + "\n")
    found = read(str(path))
    assert len(found) == 1
    assert found[0] == ONE
    np.testing.assert_array_equal(
        SolutionDataset(1, ListedSolutions(found), mini_tokenizer, 200)[0].ids,
        dataset(ONE, tokenizer=mini_tokenizer)[0].ids,
    )


def test_a_bad_row_is_named(tmp_path: Path):
    path = tmp_path / "solutions.jsonl"
    path.write_text('{"problem": "x", "solution": "y"}\n{"problem": "x"}\n')
    with pytest.raises(UserError, match=r"solutions\.jsonl:2: the field `solution` is missing"):
        read(str(path))
