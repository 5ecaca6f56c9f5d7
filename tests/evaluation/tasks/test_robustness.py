"""The red-team set and its figures; the program on random weights."""

from __future__ import annotations

import json

import pytest

from support import tiny_model
from thinkprm_jax import cli
from thinkprm_jax.arithmetic.attacks import ATTACKS, attack, whole_example
from thinkprm_jax.arithmetic.solutions import first_error, read_step
from thinkprm_jax.evaluation.tasks.robustness import PLAIN, attack_figures, robustness_task
from thinkprm_jax.records.evaluation import Outcome

EXAMPLES = [example for index in range(80) if (example := whole_example(7, index, "test")) is not None]


def attacked(kind: str):
    return [(example, made) for number, example in enumerate(EXAMPLES)
            if (made := attack(7, number, kind, example)) is not None]  # fmt: skip


@pytest.mark.parametrize("kind", ["filler", "verdict_text"])
def test_words_behind_a_step_change_nothing_that_it_says(kind):
    for example, made in attacked(kind):
        assert first_error(example.problem, made.steps) == example.first_error == made.first_error
        assert made.deserves == (example.first_error < 0)
        assert all(step.startswith(plain) for step, plain in zip(made.steps, example.chain.steps, strict=True))


def test_another_style_keeps_the_numbers():
    for example, made in attacked("style"):
        for step, stated in zip(made.steps, example.stated, strict=True):
            numbers = [int(number) for number in "".join(c if c.isdigit() else " " for c in step).split()]
            assert numbers[:3] == [stated.left, stated.right, stated.result]


@pytest.mark.parametrize(("kind", "shown"), [("repeated", 2), ("right_answer", 0)])
def test_what_deserves_nothing_has_an_error_where_it_is_said(kind, shown):
    found = attacked(kind)
    assert len(found) > 5
    for example, made in found:
        assert not made.deserves
        assert first_error(example.problem, made.steps) == made.first_error >= 0
        assert len(made.steps) == len(example.chain.steps) + shown


def test_a_right_answer_stands_at_the_end_of_wrong_steps():
    for example, made in attacked("right_answer"):
        said = read_step(made.steps[-1])
        assert said is not None
        assert said.result == example.problem.answer


def test_what_is_unfinished_is_right_so_far():
    for example, made in attacked("unfinished"):
        assert first_error(example.problem, made.steps) == -1
        assert 0 < len(made.steps) < len(example.problem.plans)
        assert not made.deserves


def test_attacks_are_pure_functions_and_half_of_the_solutions_are_wrong():
    one, other = (robustness_task(3, "test", 40) for _ in range(2))
    assert one.cases == other.cases
    assert len({case.id for case in one.cases}) == len(one.cases)
    plain = [case for case in one.cases if case.groups["attack"] == PLAIN]
    assert len(plain) == 40
    assert 10 < sum(case.first_error >= 0 for case in plain) < 30


def outcome(solution: str, kind: str, deserves: str, score: float | None) -> Outcome:
    groups = {"solution": solution, "attack": kind, "deserves": deserves}
    return Outcome(-1, -1, score, 1, 1, 1, 1, groups=groups)


def test_a_verdict_has_moved_where_it_was_right_and_is_wrong():
    figures = attack_figures(
        [
            outcome("0", PLAIN, "yes", 0.9),
            outcome("0", "style", "yes", 0.2),  # refused
            outcome("1", PLAIN, "no", 0.1),
            outcome("1", "style", "no", 0.8),  # accepted
            outcome("2", PLAIN, "no", 0.1),
            outcome("2", "style", "no", None),  # without a verdict: it counts as wrong
            outcome("3", PLAIN, "no", 0.7),  # wrong before: not counted
            outcome("3", "style", "no", 0.9),
            outcome("4", PLAIN, "yes", 0.9),
            outcome("4", "style", "yes", 0.6),
        ]
    )["style"]
    assert (figures.pairs, figures.moved.n, figures.moved.value) == (5, 4, 0.75)
    assert (figures.accepted.n, figures.accepted.value) == (2, 0.5)
    assert (figures.refused.n, figures.refused.value) == (2, 0.5)
    assert figures.score_before == pytest.approx(0.54)
    assert figures.score_after == pytest.approx(0.625)


@pytest.mark.slow
def test_the_program_writes_a_figure_for_each_attack(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tiny_model.save_folder(tmp_path / "tiny", layers=1)
    settings = ("--problems", "3", "--max-length", "320", "--max-gen-tokens", "12", "--output-dir", "out")
    assert cli.main(["evaluate", "robustness", "--model", str(model), *settings]) == 0
    figures = json.loads((tmp_path / "out/figures.json").read_text())
    assert list(figures["attacks"]) == list(ATTACKS)
    assert (tmp_path / "out/figures.png").stat().st_size > 1000
    text = capsys.readouterr().out
    assert all(kind.replace("_", " ") in text for kind in ATTACKS)
    assert (
        cli.main(["evaluate", "robustness", "--model", str(model), *settings]) == 0
    )  # goes on from details.jsonl
    assert json.loads((tmp_path / "out/figures.json").read_text())["judged_now"] == 0


def test_no_sweep_and_no_problems_are_refused(capsys):
    assert cli.main(["evaluate", "robustness", "--problems", "0"]) == 2
    assert "--problems" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        cli.main(["evaluate", "robustness", "--sweep", "n=1,2"])
