"""Curves over evaluations of verifiers that were trained on more and more labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.tasks.label_efficiency import check_same_task, label_report, lines, parse_point


def evaluation(path: Path, value: float, **more) -> str:
    figure = {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 1000}
    content = {"task": "arithmetic", "problems": 1000, "seed": 0, "figures": {"first_error_f1": figure}, **more}
    path.write_text(json.dumps(content))
    return str(path)


def test_points_make_lines_in_the_order_of_their_labels(tmp_path):
    texts = [
        f"ThinkPRM:1000={evaluation(tmp_path / 'a.json', 0.8)}",
        f"ThinkPRM:500={evaluation(tmp_path / 'b.json', 0.7)}",
        f"DiscPRM:98,000={evaluation(tmp_path / 'c.json', 0.6)}",
        f"judge:0={evaluation(tmp_path / 'd.json', 0.4)}",
    ]
    points = [parse_point(text) for text in texts]
    check_same_task(points)
    found = {line: [(point.labels, point.figure("first_error_f1").value) for point in members]
             for line, members in lines(points).items()}  # fmt: skip
    assert found == {"judge": [(0, 0.4)], "ThinkPRM": [(500, 0.7), (1000, 0.8)], "DiscPRM": [(98_000, 0.6)]}
    content = label_report(points).content
    assert content["figure"] == "first_error_f1"
    first = content["lines"]["ThinkPRM"][0]
    assert (first["labels"], first["source"]) == (500, str(tmp_path / "b.json"))
    assert (first["value"], first["low"], first["high"], first["n"]) == (0.7, 0.7 - 0.1, 0.7 + 0.1, 1000)


def test_a_line_needs_no_name(tmp_path):
    assert parse_point(f"10={evaluation(tmp_path / 'a.json', 0.5)}").line == "verifier"


def test_evaluations_of_other_solutions_make_no_curve(tmp_path):
    files = [evaluation(tmp_path / "a.json", 0.5), evaluation(tmp_path / "b.json", 0.6, seed=1)]
    with pytest.raises(UserError, match=r"b\.json: has seed 1, .*a\.json has 0"):
        check_same_task([parse_point(f"{10 + i}={file}") for i, file in enumerate(files)])


def test_a_figure_that_is_not_there_is_named(tmp_path):
    point = parse_point(f"10={evaluation(tmp_path / 'a.json', 0.5)}")
    with pytest.raises(UserError, match=r"a\.json: has no figure auroc; it has first_error_f1"):
        label_report([point], "auroc")


@pytest.mark.parametrize("text", ["a.json", "x=a.json", "ThinkPRM:=a.json", "10="])
def test_a_point_that_is_none_is_explained(text):
    with pytest.raises(UserError, match=r"write \[LINE:\]LABELS=FILE\.json"):
        parse_point(text)


def test_a_file_that_is_no_evaluation_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(UserError, match=r"a\.json: the field `task` is missing"):
        parse_point(f"10={tmp_path / 'a.json'}")
    with pytest.raises(UserError, match=r"b\.json: No such file"):
        parse_point(f"10={tmp_path / 'b.json'}")
