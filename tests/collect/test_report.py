"""Figures, files and tables of a collection, and the file of its generations."""

from __future__ import annotations

import json
import struct

import pytest

from thinkprm_jax.collect.filters import KEPT, Candidate, chain_row
from thinkprm_jax.collect.recipe import ArithmeticSource, CollectionSource, CollectRecipe, SourceCounts, Teacher
from thinkprm_jax.collect.report import (
    CHAINS,
    DECISIONS,
    PICTURE,
    REPORT,
    make_report,
    open_collection,
    save_collection,
    statistics,
)
from thinkprm_jax.collect.store import ChainTable, GenerationStore
from thinkprm_jax.data.prm800k import Prefix
from thinkprm_jax.errors import UserError
from thinkprm_jax.records import DecisionRow
from thinkprm_jax.train.collect_report import doubts, draw_lengths, print_collection


def candidate(problem: str, labels: list[int], steps: int, tokens: int) -> Candidate:
    row = chain_row(Prefix(problem, ["s"] * steps, [1] * steps, "here"), "chain", labels)
    return Candidate(0, row.prefix_label, tokens, row)


KEPT_CHAINS = [candidate("a", [1, 1], 2, 10), candidate("a", [1, 0], 3, 20), candidate("b", [0], 1, 60)]
DECISIONS_MADE = [DecisionRow("here", 0, 0, KEPT)] * 3 + [DecisionRow("here", 1, 0, "no verdict")]
GENERATED = {"chains": 4, "tokens": 100, "finish: stop": 4}


def test_statistics_are_those_of_the_papers_table():
    assert statistics(KEPT_CHAINS) == {
        "chains": 3,
        "prefixes": {"correct": 1, "incorrect": 2},
        "step_labels": {"correct": 3, "incorrect": 2},
        "problems": 2,
        "steps": {"mean": 2.0, "min": 1, "max": 3},
        "tokens": {"mean": 30.0, "min": 10, "max": 60},
    }


def test_a_teacher_whose_chains_say_little_is_named():
    counts = {"chains": 10, "finish: stop": 4, "finish: length": 5, "finish: context": 1}
    found = doubts({"generations": counts, "dropped": {"no verdict": 5, "steps without a verdict": 1}})
    assert found[0] == "6 of 10 chains were cut (teacher.max_tokens, teacher.max_length)"
    assert found[1].startswith("6 of 10 chains have no verdict on each step: this teacher is probably no verifier")
    assert doubts({"generations": {"chains": 10, "finish: stop": 10}, "dropped": {"no verdict": 5}}) == []


def test_files_and_tables(tmp_path, capsys):
    report = make_report(SourceCounts(5, 4), GENERATED, KEPT_CHAINS, DECISIONS_MADE)
    save_collection(tmp_path, report, KEPT_CHAINS, DECISIONS_MADE, draw_lengths(KEPT_CHAINS))
    lines = (tmp_path / CHAINS).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        json.loads(json.dumps(item.row.to_dict())) for item in KEPT_CHAINS
    ]
    assert len((tmp_path / DECISIONS).read_text().splitlines()) == 4
    saved = json.loads((tmp_path / REPORT).read_text())
    assert saved["dropped"] == {"no verdict": 1}
    assert saved["prefixes_used"] == 2
    picture = (tmp_path / PICTURE).read_bytes()
    assert picture.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", picture[16:24])
    assert width > height > 200
    print_collection(report, tmp_path)
    shown = capsys.readouterr().out
    assert "25.0%" in shown
    assert "30.0 (10 to 60)" in shown
    assert str(tmp_path / CHAINS) in shown


def test_nothing_kept_is_reported_too(tmp_path):
    report = make_report(SourceCounts(1, 1), {"chains": 1, "tokens": 0}, [], DECISIONS_MADE[-1:])
    save_collection(tmp_path, report, [], DECISIONS_MADE[-1:], draw_lengths([]))
    assert report["kept"]["steps"]["mean"] is None
    assert (tmp_path / CHAINS).read_bytes() == b""
    print_collection(report, tmp_path)


def recipe(folder, **teacher) -> CollectRecipe:
    source = CollectionSource(arithmetic=ArithmeticSource(2))
    return CollectRecipe(str(folder), source, Teacher(**{"model": "mini", **teacher}))


def test_a_run_keeps_its_recipe_once_it_has_generations(tmp_path):
    open_collection(recipe(tmp_path))
    open_collection(recipe(tmp_path, chains=8))  # nothing generated yet
    (tmp_path / "generations.jsonl").write_text("{}\n")
    open_collection(recipe(tmp_path, chains=8, slots=3))  # no chain depends on the slots
    with pytest.raises(UserError, match=r"teacher.chains \(8 there, 4 now\)"):
        open_collection(recipe(tmp_path))
    (tmp_path / "generations.jsonl").unlink()
    (tmp_path / "generations.jsonl.waiting").write_text("{}\n")
    with pytest.raises(UserError, match="another recipe"):
        open_collection(recipe(tmp_path))


def test_an_output_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output .*file"):
        open_collection(recipe(tmp_path / "file" / "run"))


PREFIXES = [Prefix(name, ["s"], [1], "here") for name in "abc"]
TEXT = {"tokens": 1, "finish": "stop", "error": None}


def test_the_store_goes_on_where_it_was(tmp_path):
    path = tmp_path / "g.jsonl"
    with GenerationStore(path, ChainTable(PREFIXES, 2), {"t": 1}) as store:
        assert [key for key, _, _ in store.missing(range(3))] == [0, 1, 2, 3, 4, 5]
        for key in (0, 3, 5):
            store.add(key, f"text {key}", **TEXT)
    found: dict[int, tuple[str, ...]] = {}
    table = ChainTable(PREFIXES, 2, lambda number, made: found.update({number: made.texts}))
    with GenerationStore(path, table, {"t": 1}) as store:
        assert store.stored == 3
        assert [(key, prefix.problem, chain) for key, prefix, chain in store.missing(range(1, 3))] == [
            (2, "b", 0),
            (4, "c", 0),
        ]
        for key, _, _ in store.missing(range(3)):
            store.add(key, f"text {key}", **TEXT)
    assert found == {number: (f"text {2 * number}", f"text {2 * number + 1}") for number in range(3)}
    assert list(found) == [0, 1, 2]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["text"] for row in rows] == [f"text {key}" for key in range(6)]
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_that_had_enough_leaves_nothing_waiting(tmp_path):
    path = tmp_path / "g.jsonl"
    with GenerationStore(path, ChainTable(PREFIXES, 1), {"t": 1}) as store:
        for key in (1, 0):
            store.add(key, "x", **TEXT)
    assert list(tmp_path.iterdir()) == [path]
    with GenerationStore(path, ChainTable(PREFIXES, 1), {"t": 1}) as store:
        store.add(2, "x", **TEXT)
    assert len(path.read_text().splitlines()) == 3


def test_chains_of_another_teacher_are_refused(tmp_path):
    path = tmp_path / "g.jsonl"
    with GenerationStore(path, ChainTable(PREFIXES, 1), {"t": 1}) as store:
        store.add(0, "x", **TEXT)
    with pytest.raises(UserError, match="made with t 1, this run has 2"):
        GenerationStore(path, ChainTable(PREFIXES, 1), {"t": 2})
