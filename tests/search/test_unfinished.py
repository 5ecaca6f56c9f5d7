"""What a search keeps of problems that have no rows yet."""

from __future__ import annotations

import json
import math
import re

import pytest

from support.full_disk import room_for
from support.scripted_engine import ScriptedEngine
from thinkprm_jax.errors import UserError
from thinkprm_jax.records import ChainRecord, VerdictRecord
from thinkprm_jax.search.beam_search import beam_search
from thinkprm_jax.search.best_of_n import best_of_n
from thinkprm_jax.search.engine import Continuation, Judgement, Piece, Problem, SearchSettings
from thinkprm_jax.search.unfinished import KeepingEngine, UnfinishedStore

PROBLEM = Problem(3, "2 + 2?")
SETTINGS = SearchSettings(n=4, beam_width=2, num_iterations=3, max_tokens=50)


def judged(score: float) -> Judgement:
    chain = ChainRecord("a \ud800 chain", score, (1,), (score,), (False,), "stop", 7)
    return Judgement.of_record(VerdictRecord(score, (score,), (1,), steps=("x",), chains=(chain,)), 7)


class Counting(ScriptedEngine):
    """Verdicts have records; what was asked for is counted."""

    def __init__(self) -> None:
        super().__init__(
            lambda problem, text, number: f"{number}\n\n" if len(text) < 4 else f"\\boxed{{{number}}}"
        )
        self.written = self.verified = 0

    def generate(self, continuation: Continuation):
        self.written += 1
        return super().generate(continuation)

    def verify(self, problem: Problem, solution: str):
        self.verified += 1
        return super().verify(problem, solution)

    def _judgement(self, problem: Problem, text: str) -> Judgement:
        return judged(1 / (3 + sum(map(ord, text)) % 7))


@pytest.fixture
def store(tmp_path):
    return lambda wanted=(3,): UnfinishedStore(tmp_path / "unfinished.jsonl", set(wanted))


@pytest.mark.parametrize("search", [best_of_n, beam_search])
def test_a_search_that_was_stopped_at_its_end_asks_for_nothing_again(store, search) -> None:
    first, kept = Counting(), store()
    [(_, wanted)] = list(search([PROBLEM], KeepingEngine(first, kept), SETTINGS))
    assert first.written >= 4
    kept.close()  # no rows were written: the problem is open
    again, kept = Counting(), store()
    assert kept.kept == first.written + first.verified
    [(_, found)] = list(search([PROBLEM], KeepingEngine(again, kept), SETTINGS))
    assert (again.written, again.verified) == (0, 0)
    assert found == wanted


def test_a_search_that_was_stopped_in_the_middle_gives_what_an_undisturbed_one_gives(store, tmp_path) -> None:
    path = tmp_path / "unfinished.jsonl"
    whole, kept = Counting(), store()
    [(_, wanted)] = list(beam_search([PROBLEM], KeepingEngine(whole, kept), SETTINGS))
    kept.close()
    lines = path.read_bytes().splitlines(keepends=True)
    for count in (1, len(lines) // 2, len(lines) - 1):
        path.write_bytes(b"".join(lines[:count]) + lines[count][:20])  # with a half-written line
        again, kept = Counting(), store()
        assert kept.kept == count
        [(_, found)] = list(beam_search([PROBLEM], KeepingEngine(again, kept), SETTINGS))
        assert again.written + again.verified == len(lines) - count
        assert found == wanted
        kept.close()
        assert sorted(path.read_bytes().splitlines()) == sorted(line.strip() for line in lines)


def test_what_has_its_rows_is_dropped_and_the_file_goes_with_the_last(store, tmp_path) -> None:
    path = tmp_path / "unfinished.jsonl"
    kept = store((3, 4))
    kept.keep_piece(3, "a", Piece((1,), "x", "step", 2))
    kept.keep_piece(4, "b", Piece((2,), "y", "stop", 2))
    kept.forget(3)
    kept.close()
    assert len(path.read_bytes().splitlines()) == 2
    kept = store((4,))  # another start
    assert [json.loads(line)["index"] for line in path.read_bytes().splitlines()] == [4]
    assert kept.piece(4, "b") == Piece((2,), "y", "stop", 2)
    assert kept.piece(3, "a") is None
    kept.forget(4)
    kept.close()
    assert not path.exists()


def test_the_file_does_not_grow_with_the_run(store, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("thinkprm_jax.search.unfinished._TIDY_FROM", 8)
    kept = store(range(100))
    for index in range(100):
        kept.keep_piece(index, "a", Piece((1,), "x", "step", 2))
        kept.forget(index)
        assert len((tmp_path / "unfinished.jsonl").read_bytes().splitlines()) <= 8


def test_scores_come_back_to_the_last_digit(store) -> None:
    kept, exact = store(), math.nextafter(0.1, 1)
    kept.keep_judgement(3, "k", judged(exact))
    kept.close()
    found = store().judgement(3, "k")
    assert found == judged(exact)
    assert found.scores == (exact,)


def test_what_failed_is_asked_for_again(store, tmp_path) -> None:
    kept = store()
    kept.keep_piece(3, "a", Piece(error="the prompt does not fit"))
    kept.keep_judgement(3, "b", Judgement.of_record(VerdictRecord(error="unreadable"), 5))
    kept.close()
    assert not (tmp_path / "unfinished.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"index": 3}', "unfinished.jsonl:1: the field `key` is missing"),
        ('{"index": 3, "key": "a", "ids": [], "text": "", "finish": "later", "tokens": 0}', "finish"),
        ("notes", "unfinished.jsonl:1: not JSON"),
    ],
)
def test_a_file_that_is_not_ours_is_named(store, tmp_path, line: str, message: str) -> None:
    (tmp_path / "unfinished.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=re.escape(message)):
        store()


def test_a_full_disk_reaches_whoever_runs_the_search(store, tmp_path) -> None:
    kept = store()
    with room_for(0), pytest.raises(UserError, match=r"unfinished\.jsonl: cannot be written: File too large"):
        list(best_of_n([PROBLEM], KeepingEngine(Counting(), kept), SETTINGS))


def test_what_another_model_has_written_is_not_gone_on_with(store) -> None:
    kept = store()
    kept.use({"weights": "aa", "chat_template": "tt"}, {"weights": "bb"})
    list(best_of_n([PROBLEM], KeepingEngine(Counting(), kept), SETTINGS))
    kept.close()
    store().use({"weights": "aa", "config": "new"}, {})
    for generator, verifier, theirs in (
        ({"weights": "cc"}, {"weights": "bb"}, "weights aa"),
        ({"weights": "aa"}, {"weights": "cc"}, "weights bb"),
        ({"weights": "aa", "chat_template": "cc"}, {}, "chat template tt"),
    ):
        with pytest.raises(UserError, match=rf"unfinished\.jsonl: made by .* {theirs} .* has cc"):
            store().use(generator, verifier)
