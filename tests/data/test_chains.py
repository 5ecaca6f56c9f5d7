"""Reading chains from files in the columns of the released 1K set."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from thinkprm_jax.data.chains import (
    BAD_LABELS,
    NO_VERDICT,
    OTHER_VERDICT,
    ChainReport,
    iterate_chains,
    read_chains,
)
from thinkprm_jax.data.sources import ChainDataset, ListedChains, SpooledChains
from thinkprm_jax.errors import UserError
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

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
        (without("cot"), "the field `cot` is missing"),
        ({**ROW, "problem": 3}, "the field `problem` must be a text, it is a number"),
        ({**ROW, "cot": None}, "the field `cot` must be a text, it is null"),
        ({**ROW, "prefix_steps": "Step 1: x"}, "the field `prefix_steps` must be a list of texts, it is a text"),
        ({**ROW, "prefix_steps": []}, "the field `prefix_steps` is empty"),
        ({**ROW, "prefix_steps": ["a", 2, "c"]}, "the field `prefix_steps[1]` must be a text, it is a number"),
        ({**ROW, "gt_step_labels": ["+", "wrong", "-"]}, 'gt_step_labels[1] is "wrong"; it must be "+" or "-"'),
        ({**ROW, "prefix_label": "no"}, "the field `prefix_label` must be true or false, it is a text"),
    ],
)
def test_bad_rows_are_named_by_file_line_and_field(tmp_path: Path, row: object, message: str):
    path = write(tmp_path / "bad.jsonl", ROW, row)
    with pytest.raises(UserError) as caught:
        read_chains(path)
    assert str(caught.value) == f"{path}:2: {message}"


def test_bad_files(tmp_path: Path):
    with pytest.raises(UserError, match="No such file or directory"):
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
    with pytest.raises(UserError, match="not UTF-8"):
        read_chains(tmp_path / "d.jsonl")


def chain_of(*verdicts: str, end: str = "</think>") -> str:
    steps = [f"Step {step}: Hm. {verdict}" for step, verdict in enumerate(verdicts, start=1)]
    return "<think>\n" + "\n\n".join(steps) + f"\n{end}"


RIGHT, WRONG = "The step is \\boxed{correct}", "The step is \\boxed{incorrect}"
ALL_RIGHT = {"gt_step_labels": ["+"] * 3, "prefix_label": True}


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"cot": ""}, NO_VERDICT, "step 1 of 3 has none in the chain"),
        ({"cot": chain_of(RIGHT)}, NO_VERDICT, "step 2 of 3 has none in the chain"),
        ({"cot": chain_of(RIGHT, RIGHT), **ALL_RIGHT}, NO_VERDICT, "step 3 of 3 has none in the chain"),
        ({"cot": chain_of(WRONG)}, OTHER_VERDICT, "step 1 is incorrect in the chain, correct by its label"),
        (
            {"cot": chain_of(RIGHT, RIGHT, WRONG)},
            OTHER_VERDICT,
            "step 2 is correct in the chain, incorrect by its label",
        ),
        (
            {"cot": chain_of(RIGHT, WRONG, end="</think>\nIs the solution correct? Yes<｜end▁of▁sentence｜>")},
            OTHER_VERDICT,
            "the chain ends with Yes, prefix_label is false",
        ),
        ({"gt_step_labels": ["+", "+"]}, BAD_LABELS, "gt_step_labels has 2 labels for 3 steps"),
        ({"gt_step_labels": ["+"] * 3 + ["-"]}, BAD_LABELS, "gt_step_labels has 4 labels for 3 steps"),
        ({"prefix_label": True}, BAD_LABELS, 'prefix_label is true, but gt_step_labels has a "-"'),
        ({"gt_step_labels": ["+"] * 3}, BAD_LABELS, 'prefix_label is false, but gt_step_labels has no "-"'),
    ],
)
def test_a_row_that_teaches_nothing_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict, reason: str, detail: str
):
    path = write(tmp_path / "a.jsonl", ROW, {**ROW, **changes}, ROW)
    report = ChainReport("chains")
    assert [chain.place for chain in read_chains(path, report=report)] == [f"{path}:1", f"{path}:3"]
    assert (report.rows, report.reasons) == (3, {reason: 1})
    assert report.named == [(f"{path}:2", reason, detail)]
    assert report.summary() == f"chains: 3 rows, 1 left out (1 {reason})"
    assert [record.message for record in caplog.records] == [
        f"chains: {path}:2 is left out: {reason}: {detail}",
        report.summary(),
    ]


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({"cot": chain_of(RIGHT, WRONG, RIGHT)}, [1, 0, 0]),  # what follows the first error does not count
        ({"cot": chain_of(RIGHT, WRONG, WRONG), "gt_step_labels": ["+", "-", "+"]}, [1, 0, 0]),
        ({"cot": chain_of(RIGHT, RIGHT, RIGHT), **ALL_RIGHT}, [1, 1, 1]),
        ({"cot": f"Let me see.\n{RIGHT}\n{WRONG}"}, [1, 0, 0]),  # verdicts without headings
        ({"cot": chain_of("**Verdict:** \\boxed{\\text{Correct}}", "**Verdict:** \\boxed{incorrect}")}, [1, 0, 0]),
    ],
)
def test_chains_of_other_forms_are_kept(tmp_path: Path, changes: dict, labels: list[int]):
    report = ChainReport()
    (chain,) = read_chains(write(tmp_path / "a.jsonl", {**ROW, **changes}), report=report)
    assert chain.labels == labels
    assert not report.left_out


def test_a_file_without_a_usable_row_is_refused(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", *[{**ROW, "cot": ""}] * 30)
    report = ChainReport()
    with pytest.raises(UserError, match=r"30 rows, 30 left out \(30 no verdict\): nothing to train on"):
        read_chains(path, report=report)
    assert report.reasons[NO_VERDICT] == 30
    assert len(report.named) == 20  # the others are counted only


def rows() -> list[dict]:
    return [{**ROW, "problem": f"Problem {number}."} for number in range(3)]


def test_reads_the_same_from_every_kind_of_file(tmp_path: Path):
    table = datasets.Dataset.from_list(rows())
    write(tmp_path / "a.jsonl", *rows())
    (tmp_path / "a.json").write_text(json.dumps(rows()), encoding="utf-8")
    table.to_parquet(tmp_path / "a.parquet")
    table.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": table, "test": table.select([0])}).save_to_disk(tmp_path / "splits")
    expected = read_chains(tmp_path / "a.jsonl")
    assert [chain.problem for chain in expected] == ["Problem 0.", "Problem 1.", "Problem 2."]
    for name in ("a.json", "a.parquet", "saved", "splits"):
        chains = read_chains(tmp_path / name)
        assert chains == expected, name
        assert chains[1].place == f"{tmp_path / name}: {'item' if name == 'a.json' else 'row'} 2"
    assert read_chains(tmp_path / "splits", split="test") == expected[:1]
    with pytest.raises(UserError, match=r"splits: no split dev \(it has train, test\)"):
        read_chains(tmp_path / "splits", split="dev")


def test_reads_the_files_of_a_pattern_in_the_order_of_their_names(tmp_path: Path):
    write(tmp_path / "part-2.jsonl", *rows()[2:])
    datasets.Dataset.from_list(rows()[:2]).to_parquet(tmp_path / "part-1.parquet")
    chains = read_chains(tmp_path / "part-*")
    assert [chain.problem for chain in chains] == ["Problem 0.", "Problem 1.", "Problem 2."]
    assert chains[2].place == f"{tmp_path / 'part-2.jsonl'}:1"
    with pytest.raises(UserError, match="no such files"):
        read_chains(tmp_path / "other-*.jsonl")


def test_bad_rows_of_a_parquet_file_are_named(tmp_path: Path):
    table = datasets.Dataset.from_list(rows())
    table.remove_columns("cot").to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError) as caught:
        read_chains(tmp_path / "a.parquet")
    assert str(caught.value) == f"{tmp_path / 'a.parquet'}: row 1: the field `cot` is missing"
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"b\.parquet: cannot be read: \S.*") as caught:
        read_chains(tmp_path / "b.parquet")
    assert "\n" not in str(caught.value)


def test_an_id_is_read_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def load_dataset(name: str, split: str, revision: str | None) -> datasets.Dataset:
        asked.append((name, split, revision))
        if name == "owner/gone":
            raise ConnectionError("Couldn't reach it\nat all")
        return datasets.Dataset.from_list(rows())

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    assert read_chains("owner/some.chains") == read_chains(write(tmp_path / "a.jsonl", *rows()))
    assert read_chains("owner/chains@v1.0", split="test")[2].place == "owner/chains@v1.0: row 3"
    with pytest.raises(UserError) as caught:
        read_chains("owner/gone")
    reason = "Couldn't reach it at all"
    assert str(caught.value) == f"owner/gone: no such file, and not available from the Hugging Face Hub: {reason}"
    for name in ("owner/missing.jsonl", "missing", "a/b/c"):  # none of these is an id
        with pytest.raises(UserError, match=f"^{name}: (cannot be read|No such file)"):
            read_chains(name)
    assert asked == [
        ("owner/some.chains", "train", None),
        ("owner/chains", "test", "v1.0"),
        ("owner/gone", "train", None),
    ]


def test_verdicts_can_be_read_when_a_chain_has_its_turn(tmp_path: Path, mini_tokenizer: Tokenizer):
    bad = {**ROW, "gt_step_labels": ["-"]}  # the chain calls the first step correct
    file = write(tmp_path / "a.jsonl", ROW, bad, ROW)
    report = ChainReport("a.jsonl")
    late = SpooledChains(iterate_chains(file, report=report, verdicts=False), unchecked=True)
    assert (len(late), report.left_out) == (3, 0)
    dataset = ChainDataset(3, late, mini_tokenizer, 4096, report=report)
    assert [dataset.length(index) is None for index in range(3)] == [False, True, False]
    assert report.reasons == {OTHER_VERDICT: 1}
    assert report.named[0][0] == f"{file}:2"
    early = SpooledChains(iterate_chains(file))
    assert [early(0), early(1)] == read_chains(file) == [late(0), late(2)]
    assert ListedChains(read_chains(file)).fingerprint == early.fingerprint != late.fingerprint
