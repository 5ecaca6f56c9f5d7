"""A collection holds a few rows in memory, however many it has."""

from __future__ import annotations

import gc
import json
import tracemalloc
from pathlib import Path

import pytest

from thinkprm_jax.checkpoint.huggingface import BUNDLED
from thinkprm_jax.collect.filters import Collection
from thinkprm_jax.collect.recipe import Filters, SourceCounts
from thinkprm_jax.collect.report import make_report, save_collection
from thinkprm_jax.collect.spool import PrefixTable, count_distinct
from thinkprm_jax.collect.store import ChainTable, GenerationStore
from thinkprm_jax.data.prm800k import Prefix
from thinkprm_jax.errors import UserError
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.train.collect_report import draw_lengths

WAVE, CHAINS = 20, 2


def prefix(number: int) -> Prefix:
    return Prefix(f"{number} + 1? " + "Mia has shells. " * 400, [f"{number} + 1 = {number + 1}."], [1], "here")


def collect(folder: Path, tokenizer: Tokenizer, prefixes: int) -> int:
    """A whole run on so many prefixes; the peak of its memory, in bytes."""
    folder.mkdir(exist_ok=True)
    gc.collect()
    tracemalloc.start()
    table = PrefixTable()
    for number in range(prefixes):
        assert table.add(f"{number * 7919 % 10007:05d}".encode(), prefix(number))
    table.sort()
    collection = Collection(Filters(balance=False, target=None), tokenizer, 0, WAVE)
    with GenerationStore(folder / "g.jsonl", ChainTable(table, CHAINS, collection.add), {"t": 1}) as store:
        for missing in store.work(WAVE):
            for key, _, chain in missing[::-1]:  # all but the last one wait for their turn
                text = f"So {chain}. The step is \\boxed{{correct}}"
                store.add(key, text + " and so on" * 100, 7, "stop")
    kept, decisions = collection.select()
    report = make_report(SourceCounts(prefixes, prefixes), collection.generated, kept, decisions)
    save_collection(folder, report, kept, decisions, b"")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report["kept"]["chains"] == report["generations"]["chains"] == prefixes * CHAINS
    assert (report["kept"]["problems"], report["prefixes_used"]) == (prefixes, prefixes)
    return peak


def test_memory_does_not_grow_with_the_rows(tmp_path):
    tokenizer = Tokenizer.load(BUNDLED["mini"])
    collect(tmp_path / "first", tokenizer, WAVE)  # what is loaded once
    small, large = 2 * WAVE, 8 * WAVE
    peaks = [collect(tmp_path / str(count), tokenizer, count) for count in (small, large)]
    # A run that goes on reads them again, and has no more in memory.
    peaks.append(collect(tmp_path / str(large), tokenizer, large))
    sizes = [sum(file.stat().st_size for file in (tmp_path / str(count)).iterdir()) for count in (small, large)]
    grown = sizes[1] - sizes[0]
    assert grown > 2_500_000
    assert max(peaks) - peaks[0] < grown / 10, (peaks, sizes)


def test_prefixes_are_in_the_order_of_their_digests_each_once():
    table = PrefixTable()
    given = {b"c": "one", b"a": "two \ud800", b"b": "three"}
    for digest, problem in given.items():
        assert table.add(digest, Prefix(problem, ["s", "t"], [1, 0], "here"))
    assert not table.add(b"a", Prefix("another", ["s"], [1], "here"))
    assert table.sort(limit=2) == 1
    assert (
        [prefix.problem for prefix in table] == [prefix.problem for prefix in table[:]] == ["two \ud800", "three"]
    )
    assert table[-1] == Prefix("three", ["s", "t"], [1, 0], "here")
    with pytest.raises(IndexError):
        table[2]


def test_a_full_disk_is_one_line():
    table = PrefixTable()
    table._spool.run("PRAGMA max_page_count=8")
    added = (table.add(str(number).encode(), prefix(number)) for number in range(1000))
    with pytest.raises(UserError, match=r"^temporary files of the collection .*disk is full$"):
        all(added)


def test_different_texts_are_counted():
    assert count_distinct(["a", "b", "a", "\ud800"]) == 3


def test_a_lengths_picture_counts_every_chain(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    from thinkprm_jax.collect.filters import Candidate, chain_row

    drawn = []
    monkeypatch.setattr(Axes, "legend", lambda *_, **__: None)
    monkeypatch.setattr(Axes, "hist", lambda self, sizes, weights, **_: drawn.append((sizes, weights)))
    rows = [chain_row(Prefix("p", ["s"], [1], "here"), "chain", [label]) for label in (1, 1, 0)]
    draw_lengths([Candidate(0, row.prefix_label, 10, row) for row in rows])
    assert json.dumps(drawn[0]) == json.dumps(([[10], [10]], [[2], [1]]))
