"""Reading chains from files in the columns of the released 1K set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thinkprm_jax.data.chains import read_chains
from thinkprm_jax.errors import UserError

ROW = {
    "problem": "Compute 2 + 2 + 3.",
    "prefix": "Step 1: 2 + 2 = 4.\nStep 2: 4 + 3 = 8.\nStep 3: The answer is 8.",
    "cot": "<think>\nLet's verify step by step:\n\nStep 1: Fine. The step is \\boxed{correct}\n\n"
    "Step 2: 4 + 3 is 7. The step is \\boxed{incorrect}\n</think>\nIs the solution correct? No",
    "prefix_steps": ["Step 1: 2 + 2 = 4.", "Step 2: 4 + 3 = 8.", "Step 3: The answer is 8."],
    "gt_step_labels": ["+", "-", "+"],
    "prefix_label": False,
}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_reads_json_lines(tmp_path: Path):
    (chain,) = read_chains(write(tmp_path / "a.jsonl", ROW))
    assert chain.problem == ROW["problem"]
    assert chain.steps == ROW["prefix_steps"]
    assert chain.labels == [1, 0, 0]  # the "+" after the first error counts for nothing
    assert chain.correct is False
    assert chain.chain.startswith("Let's verify step by step:\n\nStep 1: Fine.")
    assert chain.chain.endswith("The step is \\boxed{incorrect}")


def test_reads_a_json_list_and_skips_blank_lines(tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps([ROW, ROW], indent=1), encoding="utf-8")
    assert len(read_chains(tmp_path / "a.json")) == 2
    (tmp_path / "b.jsonl").write_text(f"\n{json.dumps(ROW)}\n\n", encoding="utf-8")
    assert len(read_chains(tmp_path / "b.jsonl")) == 1


def test_labels_may_end_at_the_first_error(tmp_path: Path):
    (chain,) = read_chains(write(tmp_path / "a.jsonl", {**ROW, "gt_step_labels": ["+", "-"]}))
    assert chain.labels == [1, 0, 0]


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in ROW.items() if key != name}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], "a row is an object, not a list"),
        (without("cot"), "the field cot is missing"),
        ({**ROW, "problem": 3}, "problem must be a text, not a number"),
        ({**ROW, "cot": None}, "cot must be a text, not null"),
        ({**ROW, "prefix_steps": "Step 1: x"}, "prefix_steps must be a list, not a text"),
        ({**ROW, "prefix_steps": []}, "prefix_steps is empty"),
        ({**ROW, "prefix_steps": ["a", 2, "c"]}, "prefix_steps[1] must be a text, not a number"),
        ({**ROW, "gt_step_labels": ["+", "wrong", "-"]}, 'gt_step_labels[1] is "wrong"; it must be "+" or "-"'),
        ({**ROW, "gt_step_labels": ["+", "+"]}, "gt_step_labels has 2 labels for 3 steps"),
        ({**ROW, "gt_step_labels": ["+"] * 3 + ["-"]}, "gt_step_labels has 4 labels for 3 steps"),
        ({**ROW, "prefix_label": "no"}, "prefix_label must be true or false, not a text"),
        ({**ROW, "prefix_label": True}, 'prefix_label is true, but gt_step_labels has a "-"'),
        ({**ROW, "gt_step_labels": ["+"] * 3}, 'prefix_label is false, but gt_step_labels has no "-"'),
    ],
)
def test_bad_rows_are_named_by_file_line_and_field(tmp_path: Path, row: object, message: str):
    path = write(tmp_path / "bad.jsonl", ROW, row)
    with pytest.raises(UserError) as caught:
        read_chains(path)
    assert str(caught.value) == f"{path}:2: {message}"


def test_bad_files(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be read"):
        read_chains(tmp_path / "missing.jsonl")
    (tmp_path / "a.jsonl").write_text(json.dumps(ROW) + "\n{", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl:2: not JSON"):
        read_chains(tmp_path / "a.jsonl")
    (tmp_path / "b.json").write_text("[1,\n 2", encoding="utf-8")
    with pytest.raises(UserError, match=r"b\.json:2: not JSON"):
        read_chains(tmp_path / "b.json")
    (tmp_path / "c.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="no chains"):
        read_chains(tmp_path / "c.jsonl")
    (tmp_path / "d.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        read_chains(tmp_path / "d.jsonl")
